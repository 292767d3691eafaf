// Package s3 keeps a store in a bucket of Amazon S3 or of a server that speaks its protocol.
package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/minio/minio-go/v7"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

const (
	amazon        = "https://s3.amazonaws.com" // the library makes the region's host of it
	defaultRegion = "us-east-1"
)

// Open returns the store at s3://BUCKET/PREFIX. It makes no request. Settings are
//
//	endpoint          the server, as https://host:port; Amazon's if it is not set
//	region            that of the bucket; us-east-1 if it is not set
//	path-style        whether the bucket is in the path, not in the host name; not at Amazon's, but elsewhere if it is not set
//	ca-file           certificates in PEM format that are trusted beside the system's
//	credentials       "environment": they are in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN
//	credentials-dir   a directory with files access-key-id, secret-access-key and maybe session-token, as a mounted Secret has them
//	credentials-file  a file as the AWS tools have it
//	profile           the one in that file; "default" if it is not set
//
// Without credentials of any kind those are taken that the AWS tools would find: in the environment, in the home directory, of a
// service account or of the machine. Files are read again when they change.
func Open(u *url.URL) (store.Store, error) {
	a, err := bucket.ParseAddress(u, "endpoint", "region", "path-style", "ca-file", "credentials", "credentials-dir", "credentials-file", "profile")
	if err != nil {
		return nil, err
	}
	c, err := newClient(a)
	if err != nil {
		return nil, err
	}
	return bucket.New(c, a.Prefix, a.URL("s3")), nil
}

func newClient(a bucket.Address) (*client, error) {
	endpoint, err := a.Endpoint(amazon)
	if err != nil {
		return nil, err
	}
	lookup, err := lookupOf(a)
	if err != nil {
		return nil, err
	}
	ca, err := a.File("ca-file")
	if err != nil {
		return nil, err
	}
	transport, err := bucket.NewTransport(ca)
	if err != nil {
		return nil, err
	}
	creds, err := credentialsOf(a)
	if err != nil {
		return nil, err
	}
	region := cmp.Or(a.Settings["region"], defaultRegion)
	inner, err := minio.New(endpoint.Host, &minio.Options{
		Creds: creds, Secure: endpoint.Scheme == "https", Transport: bucket.Genuine(transport, checkReply), Region: region, BucketLookup: lookup,
		MaxRetries: 1, // whoever calls repeats
	})
	if err != nil {
		return nil, fmt.Errorf("the endpoint or bucket of the store is not valid: %w", err)
	}
	inner.SetAppInfo("ws-daemon", "")
	return &client{core: minio.Core{Client: inner}, creds: creds, bucket: a.Bucket, region: region, secure: endpoint.Scheme == "https"}, nil
}

func lookupOf(a bucket.Address) (minio.BucketLookupType, error) {
	text := a.Settings["path-style"]
	if text == "" {
		text = strconv.FormatBool(a.Settings["endpoint"] != "")
	}
	path, err := strconv.ParseBool(text)
	if err != nil {
		return minio.BucketLookupAuto, errors.New("the setting path-style of a store is true or false")
	}
	if path {
		return minio.BucketLookupPath, nil
	}
	return minio.BucketLookupDNS, nil
}

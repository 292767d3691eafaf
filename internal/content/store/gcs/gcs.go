// Package gcs keeps a store in a bucket of Google Cloud Storage.
package gcs

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"google.golang.org/api/option"
	storage "google.golang.org/api/storage/v1"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

const google = "https://storage.googleapis.com"

// Open returns the store at gs://BUCKET/PREFIX. It makes no request. Settings are
//
//	endpoint          the server, as https://host:port; Google's if it is not set. One without TLS is an emulator: it gets no credentials
//	ca-file           certificates in PEM format that are trusted beside the system's
//	credentials-file  a key of a service account, or a configuration of workload identity federation, in JSON
//
// Without a file those credentials are taken that Google's tools would find: in the environment, in the home directory, of the
// workload's service account or of the machine. The file is read again when it changes.
func Open(ctx context.Context, u *url.URL) (store.Store, error) {
	a, err := bucket.ParseAddress(u, "endpoint", "ca-file", "credentials-file")
	if err != nil {
		return nil, err
	}
	c, err := newClient(ctx, a)
	if err != nil {
		return nil, err
	}
	return bucket.New(c, a.Prefix, a.URL("gs")), nil
}

func newClient(ctx context.Context, a bucket.Address) (*client, error) {
	endpoint, err := a.Endpoint(google)
	if err != nil {
		return nil, err
	}
	ca, err := a.File("ca-file")
	if err != nil {
		return nil, err
	}
	file, err := a.File("credentials-file")
	if err != nil {
		return nil, err
	}
	transport, err := bucket.NewTransport(ca)
	if err != nil {
		return nil, err
	}
	if endpoint.Scheme == "https" {
		transport = &authorized{inner: transport, file: file}
	}
	service, err := storage.NewService(ctx, option.WithHTTPClient(&http.Client{Transport: bucket.Genuine(transport, checkReply)}),
		option.WithEndpoint(endpoint.String()+"/storage/v1/"), option.WithUserAgent("ws-daemon"))
	if err != nil {
		return nil, fmt.Errorf("the endpoint of the store is not valid: %w", err)
	}
	return &client{objects: service.Objects, bucket: a.Bucket}, nil
}

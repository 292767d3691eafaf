package s3

import (
	"context"
	"crypto/md5" //nolint:gosec // a checksum that old servers compare, not a proof
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

func contentMD5(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // see above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// do makes a request and says what its failure means. Credentials that are refused are read anew once: they may have been replaced.
func (c *client) do(ctx context.Context, request func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, reply := bucket.Traced(ctx)
	err := request(ctx)
	if err != nil && ctx.Err() == nil && c.outdated(err) {
		c.creds.Expire()
		err = request(ctx)
	}
	if err == nil {
		return nil
	}
	return c.explain(err, reply)
}

// outdated says whether newer credentials may help. The reply to a HEAD has no code.
func (c *client) outdated(err error) bool {
	var e minio.ErrorResponse
	if !errors.As(err, &e) {
		return false
	}
	return badCredentials(e) || e.XMLName.Local == "" && e.StatusCode == http.StatusForbidden
}

// badCredentials says whether others would be let in. Some servers have a status of their own for that, and codes of their own.
func badCredentials(e minio.ErrorResponse) bool {
	switch e.Code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired",
		"InvalidClientTokenId", "UnrecognizedClientException":
		return true
	}
	return e.StatusCode == http.StatusUnauthorized
}

// explain gives an error its place among those of package store.
func (c *client) explain(err error, reply *bucket.Reply) error {
	var e minio.ErrorResponse
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &authority):
		return &store.RefusedError{Err: err, Advice: "give the store's certificate authority as ca-file"}
	case !errors.As(err, &e):
		return err
	}
	err = fmt.Errorf("the store answered %s (%d): %w", e.Code, e.StatusCode, err)
	switch e.StatusCode {
	case http.StatusNotFound:
		return c.absent(e, reply, err)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", store.ErrExists, err)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", store.ErrTooShort, err)
	}
	if advice := c.advice(e, reply); advice != "" {
		return &store.RefusedError{Err: err, Advice: advice, Denied: e.StatusCode == http.StatusForbidden}
	}
	if reply.After > 0 {
		return &store.BusyError{Err: err, After: reply.After}
	}
	return err
}

// absent tells a missing object from a missing bucket and from servers that are no object stores.
func (c *client) absent(e minio.ErrorResponse, reply *bucket.Reply, err error) error {
	switch {
	case e.XMLName.Local == "" && reply.Method != http.MethodHead:
		return fmt.Errorf("%w: this is not how an object store says that something is absent; is there a proxy that answers for it?", err)
	case e.Code == minio.NoSuchBucket:
		return &store.RefusedError{Err: err, Advice: fmt.Sprintf("there is no bucket %s: create it, or correct bucket, endpoint or region", c.bucket)}
	case e.Code == minio.NoSuchKey:
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	return err
}

// advice says what to do about an answer that no repetition changes; it is empty for one that may pass.
func (c *client) advice(e minio.ErrorResponse, reply *bucket.Reply) string {
	switch {
	case badCredentials(e):
		return "the credentials are wrong or have expired: replace them, where they are read from they are read again"
	case e.Code == "RequestTimeTooSkewed" || e.Code == "RequestExpired":
		return bucket.ClocksDiffer(reply.Date)
	case e.Code == "QuotaExceeded" || strings.HasSuffix(e.Code, "StorageFull") || e.StatusCode == http.StatusInsufficientStorage:
		return "the store is full: give it more room, or raise its quota"
	case wrongRegion(e):
		return c.regionAdvice(e)
	case e.StatusCode == http.StatusForbidden || e.Code == minio.AccessDenied: // among several deletes an error has no status
		return fmt.Sprintf("allow these credentials s3:ListBucket on the bucket %s and s3:GetObject, s3:PutObject and s3:DeleteObject on its "+
			"objects; without s3:ListBucket this is also the answer for an object that is missing", c.bucket)
	case e.StatusCode == http.StatusNotImplemented:
		return "the store cannot do what is needed: use one of the tested stores"
	case e.Code == "EntityTooLarge" || e.Code == "InvalidBucketName":
		return "the store does not accept this: check its limits and the name of the bucket"
	}
	return ""
}

func wrongRegion(e minio.ErrorResponse) bool {
	switch e.Code {
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "InvalidRegion":
		return true
	}
	return e.StatusCode == http.StatusMovedPermanently
}

func (c *client) regionAdvice(e minio.ErrorResponse) string {
	if e.Region == "" {
		return fmt.Sprintf("the bucket is not in the region %s: set the region it is in", c.region)
	}
	return fmt.Sprintf("the bucket is not in the region %s: set region to %s", c.region, e.Region)
}

package gcs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/api/googleapi"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

// do makes a request and says what its failure means. A token that is refused is fetched anew once: the key may have been replaced.
func (c *client) do(ctx context.Context, request func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, reply := bucket.Traced(ctx)
	err := request(ctx)
	if status(err) == http.StatusUnauthorized && ctx.Err() == nil {
		err = request(ctx)
	}
	if err == nil {
		return nil
	}
	return c.explain(err, reply)
}

func status(err error) int {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

// explain gives an error its place among those of package store.
func (c *client) explain(err error, reply *bucket.Reply) error {
	var e *googleapi.Error
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &authority):
		return &store.RefusedError{Err: err, Advice: "give the store's certificate authority as ca-file"}
	case !errors.As(err, &e):
		return err
	}
	complete(e)
	err = fmt.Errorf("the store answered %d: %s", e.Code, said(e))
	switch e.Code {
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: %w", store.ErrExists, err)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", store.ErrTooShort, err)
	case http.StatusNotFound:
		return c.absent(e, err)
	}
	if advice := c.advice(e); advice != "" {
		return &store.RefusedError{Err: err, Advice: advice, Denied: e.Code == http.StatusForbidden}
	}
	if reply.After > 0 {
		return &store.BusyError{Err: err, After: reply.After}
	}
	return err
}

// errNoBucket is how a request that names no object ends if there is no bucket.
var errNoBucket = errors.New("there is no such bucket")

// absent tells a missing object from a missing bucket and from servers that are no object stores.
func (c *client) absent(e *googleapi.Error, err error) error {
	switch text := said(e); {
	case strings.Contains(text, "bucket does not exist"):
		return c.noBucket(err)
	case strings.HasPrefix(text, "No such object"), text == http.StatusText(http.StatusNotFound):
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	return fmt.Errorf("%w: this is not how an object store says that something is absent; is there a proxy that answers for it?", err)
}

func (c *client) noBucket(err error) error {
	return &store.RefusedError{Err: err, Advice: fmt.Sprintf("there is no bucket %s: create it, or correct the bucket", c.bucket)}
}

// ofBucket says what it means that something is absent if no object was asked for.
func (c *client) ofBucket(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return c.noBucket(errNoBucket)
	}
	return err
}

// complete reads what the library does not of replies to requests for content.
func complete(e *googleapi.Error) {
	var reply struct {
		Error *googleapi.Error `json:"error"`
	}
	if e.Message == "" && json.Unmarshal([]byte(e.Body), &reply) == nil && reply.Error != nil {
		e.Message, e.Errors = reply.Error.Message, reply.Error.Errors
	}
}

// said is the text of an answer, of which more than a line is no text for people.
func said(e *googleapi.Error) string {
	text := e.Message
	if text == "" {
		text = e.Body
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return text[:min(len(text), 300)]
}

// advice says what to do about an answer that no repetition changes; it is empty for one that may pass.
func (c *client) advice(e *googleapi.Error) string {
	switch {
	case e.Code == http.StatusUnauthorized:
		return "the credentials are wrong or have expired: replace them, where they are read from they are read again"
	case e.Code == http.StatusForbidden && !limited(e):
		return fmt.Sprintf("give this account storage.objects.get, create, delete and list on the bucket %s, as the role Storage Object User "+
			"has them; without storage.objects.list this is also the answer for an object that is missing", c.bucket)
	case e.Code == http.StatusNotImplemented:
		return "the store cannot do what is needed: use one of the tested stores"
	case e.Code == http.StatusRequestEntityTooLarge || e.Code == http.StatusInsufficientStorage:
		return "the store does not take that much: check its limits"
	}
	return ""
}

// limited says whether too many requests were made, or too much was read; some of these answers are a 403.
func limited(e *googleapi.Error) bool {
	for _, item := range e.Errors {
		switch item.Reason {
		case "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "downloadBandwidthExceeded", "uploadBandwidthExceeded":
			return true
		}
	}
	return false
}

// Package drivers opens stores by their URL.
package drivers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/gcs"
	"wsdaemon.dev/ws-daemon/internal/content/store/s3"
)

// usage is what an address looks like.
const usage = "write file:///directory, s3://bucket/prefix or gs://bucket/prefix"

// Open returns the store at a URL: file:///DIR, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, the latter two with settings as
// ?endpoint=https://host:port (see [s3.Open] and [gcs.Open]). It makes no request: see [store.Identity].
func Open(ctx context.Context, rawURL string) (store.Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's own message repeats the URL, which may hold a secret.
		return nil, errors.New("open store: its URL cannot be parsed: " + usage)
	}
	s, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, u *url.URL) (store.Store, error) {
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !strings.HasPrefix(u.Path, "/") {
			return nil, errors.New("a file URL has an absolute path and nothing else: write file:///directory")
		}
		return store.NewFilesystem(u.Path)
	case "s3":
		return s3.Open(u)
	case "gs":
		return gcs.Open(ctx, u)
	}
	return nil, fmt.Errorf("unknown scheme %q: %s", u.Scheme, usage)
}

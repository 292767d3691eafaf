package gcs

import (
	"mime"
	"net/http"

	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

// checkReply refuses replies of success that are none: content comes with what the store says of it, and everything else is JSON.
func checkReply(req *http.Request, resp *http.Response) error {
	switch {
	case req.URL.Query().Get("alt") == "media":
		if resp.Header.Get("X-Goog-Hash") == "" && resp.Header.Get("X-Goog-Generation") == "" {
			return bucket.ErrForeign
		}
	case resp.StatusCode != http.StatusNoContent:
		if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return bucket.ErrForeign
		}
	}
	return nil
}

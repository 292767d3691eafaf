package gcs

import (
	"mime"
	"net/http"

	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

// checkReply refuses replies of success that are none: content comes with hashes, and everything else that is said is JSON.
func checkReply(req *http.Request, resp *http.Response) error {
	switch {
	case req.URL.Query().Get("alt") == "media":
		if len(resp.Header.Values("X-Goog-Hash")) == 0 {
			return bucket.ErrForeign
		}
	case resp.StatusCode != http.StatusNoContent:
		if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return bucket.ErrForeign
		}
	}
	return nil
}

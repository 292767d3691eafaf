package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"

	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

// maxProlog is how far into a reply its first element is looked for, in bytes.
const maxProlog = 4 << 10

// checkReply refuses replies of success that are none. What an object's reply must have, the library knows.
func checkReply(req *http.Request, resp *http.Response) error {
	switch {
	case req.Method == http.MethodPut && resp.Header.Get("ETag") == "",
		req.Method == http.MethodDelete && resp.StatusCode != http.StatusNoContent:
		return bucket.ErrForeign
	case req.Method == http.MethodGet && req.URL.Query().Has("list-type"):
		return checkListing(resp)
	}
	return nil
}

// checkListing looks at the first element of a listing. An error that comes with status 200, since the store met it when it had begun to
// answer, becomes one: the library would find no objects in it.
func checkListing(resp *http.Response) error {
	var begun bytes.Buffer
	element, err := firstElement(io.TeeReader(io.LimitReader(resp.Body, maxProlog), &begun))
	if err != nil {
		return err
	}
	switch element {
	case "ListBucketResult":
	case "Error":
		resp.StatusCode, resp.Status = http.StatusInternalServerError, "500 Internal Server Error"
	default:
		return bucket.ErrForeign
	}
	resp.Body = &rest{Reader: io.MultiReader(&begun, resp.Body), Closer: resp.Body}
	return nil
}

// rest is a body of which something was read before.
type rest struct {
	io.Reader
	io.Closer
}

// firstElement reads up to the first element of a document, and returns its name.
func firstElement(from io.Reader) (string, error) {
	for d := xml.NewDecoder(from); ; {
		token, err := d.Token()
		var syntax *xml.SyntaxError
		if errors.Is(err, io.EOF) || errors.As(err, &syntax) {
			return "", fmt.Errorf("%w (%w)", bucket.ErrForeign, err)
		}
		if err != nil {
			return "", err
		}
		if e, ok := token.(xml.StartElement); ok {
			return e.Name.Local, nil
		}
	}
}

package bucket

import "net/http"

// Genuine returns a transport that fails with what check says of replies of success. What the libraries of the stores take for granted about
// those is to be looked at there: they read a page of a proxy as a listing without objects, or as the word that something is stored. Check
// may change the reply.
func Genuine(inner http.RoundTripper, check func(*http.Request, *http.Response) error) http.RoundTripper {
	return &genuine{inner: inner, check: check}
}

type genuine struct {
	inner http.RoundTripper
	check func(*http.Request, *http.Response) error
}

func (g *genuine) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := g.inner.RoundTrip(req)
	if err != nil || resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusMultipleChoices {
		return resp, err
	}
	if err := g.check(req, resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

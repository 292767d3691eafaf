package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestRun(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(run))
	t.Cleanup(server.Close)
	for script, want := range map[string][2]string{
		"cat; echo and more >&2":       {"input\nand more\n", "0"},
		"exit 3":                       {"", "3"},
		"false; echo not reached":      {"", "1"},
		"false | true; echo not here":  {"", "1"},
		"kill -KILL $$; echo not here": {"", "-1"},
	} {
		out, code := post(t, server.URL, script)
		NewWithT(t).Expect([2]string{out, code}).To(Equal(want), script)
	}
}

func post(t *testing.T, address, script string) (out, code string) {
	t.Helper()
	g := NewWithT(t)
	address += "/?" + url.Values{"script": {script}}.Encode()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader("input\n"))
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return string(text), response.Trailer.Get("Exit")
}

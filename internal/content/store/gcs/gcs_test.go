package gcs_test

import (
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/gcs"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// prefix is one that no other test uses.
func prefix(t *testing.T) string {
	t.Helper()
	return "t/" + strings.ReplaceAll(t.Name(), " ", "_")
}

// open opens a store at an endpoint, with more settings.
func open(t *testing.T, endpoint string, settings ...string) store.Store {
	t.Helper()
	text := server.URL(prefix(t), endpoint) + "&" + strings.Join(settings, "&")
	u, err := url.Parse(strings.TrimSuffix(text, "&"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	s, err := gcs.Open(t.Context(), u)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

func TestGCSConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return open(t, "")
	})
}

func TestGCSBroken(t *testing.T) {
	storetest.RunBroken(t, server.Endpoint, func(t *testing.T, endpoint string) store.Store {
		t.Helper()
		return open(t, endpoint)
	})
}

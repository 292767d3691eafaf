package s3_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/stores"
	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/s3"
	"wsdaemon.dev/ws-daemon/internal/content/store/storetest"
)

// prefix is one that no other test uses.
func prefix(t *testing.T) string {
	t.Helper()
	return "t/" + strings.ReplaceAll(t.Name(), " ", "_")
}

// secret writes credentials as a mounted Secret has them.
func secret(t *testing.T, key, value string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"access-key-id": key, "secret-access-key": value + "\n"} {
		NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
	}
	return dir
}

// open opens a store at an endpoint, with more settings.
func open(t *testing.T, endpoint string, settings ...string) store.Store {
	t.Helper()
	text := server.URL(prefix(t), endpoint) + "&" + strings.Join(settings, "&")
	u, err := url.Parse(strings.TrimSuffix(text, "&"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	s, err := s3.Open(u)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

func openAsAdmin(t *testing.T) store.Store {
	t.Helper()
	return open(t, "", "credentials-dir="+secret(t, stores.AccessKey, stores.SecretKey))
}

func TestS3Conforms(t *testing.T) { storetest.Run(t, openAsAdmin) }

func TestS3Broken(t *testing.T) {
	storetest.RunBroken(t, server.Endpoint, func(t *testing.T, endpoint string) store.Store {
		t.Helper()
		return open(t, endpoint, "credentials-dir="+secret(t, stores.AccessKey, stores.SecretKey))
	})
}

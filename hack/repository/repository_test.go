package repository

import (
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestRoot(t *testing.T) {
	g := NewWithT(t)
	root, err := Root()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filepath.Join(root, "hack", "repository", "repository_test.go")).To(BeAnExistingFile())
	outside := t.TempDir()
	t.Chdir(outside)
	_, err = Root()
	g.Expect(err).To(MatchError(outside + " is not inside the repository of wsdaemon.dev/ws-daemon: change into it"))
}

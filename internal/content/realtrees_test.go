package content_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

// packStore is a store of packs.
type packStore struct{ packs sync.Map }

func (m *packStore) PutPack(_ context.Context, id format.PackID, data []byte) error {
	m.packs.Store(id, slices.Clone(data))
	return nil
}

func (m *packStore) ReadPack(_ context.Context, id format.PackID, offset int64, buf []byte) error {
	data, _ := m.packs.Load(id)
	copy(buf, data.([]byte)[offset:])
	return nil
}

func script(t *testing.T, dir, text string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GOCACHE="+dir+"/cache", "GOFLAGS=-mod=mod -trimpath", "GOTOOLCHAIN=local", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s: %s", text, out)
	return string(out)
}

// Tools that compare times find nothing to do in a tree that was restored.
func TestRealTreesNeedNoRebuild(t *testing.T) {
	for name, c := range map[string]struct{ build, check string }{
		"git": {`git init -q .; git config user.name n; git config user.email n@example.org; git config core.checkStat minimal
			git config core.trustctime false; mkdir -p a/b; echo x >a/b/c; ln -s c a/b/l; chmod +x a/b/c; git add -A; git commit -qm first`,
			`before=$(sha256sum .git/index); git diff-files --quiet; git status --porcelain; git fsck --no-progress; test "$before" = "$(sha256sum .git/index)"`},
		"make": {`printf 'out/b: out/a\n\tcp out/a out/b\nout/a: in\n\tcp in out/a\n' >Makefile; mkdir out; echo x >in; make -s`, `make -q`},
		"go": {`printf 'module example.org/m\n\ngo 1.24\n' >go.mod; echo 'package m' >m.go; go build -v . 2>&1 | grep -qx example.org/m`,
			`go build -v .`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			base := t.TempDir()
			from, to, s := filepath.Join(base, "from"), filepath.Join(base, "to"), &packStore{}
			g.Expect(os.Mkdir(from, 0o755)).To(Succeed())
			g.Expect(os.Mkdir(to, 0o755)).To(Succeed())
			script(t, from, c.build)
			r, err := archive.Create(t.Context(), from, archive.CreateOptions{Sink: s})
			g.Expect(err).NotTo(HaveOccurred())
			_, _, err = archive.Restore(t.Context(), r.Root, to, archive.RestoreOptions{Source: s})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.RemoveAll(from)).To(Succeed())
			g.Expect(script(t, to, c.check)).To(BeEmpty())
		})
	}
}

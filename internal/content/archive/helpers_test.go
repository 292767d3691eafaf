package archive_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// memory is a store of packs.
type memory struct {
	mu    sync.Mutex
	packs map[string][]byte
	fail  error // of every PutPack after the first
}

func newMemory() *memory { return &memory{packs: map[string][]byte{}} }

func (m *memory) PutPack(ctx context.Context, data []byte) (archive.Pack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil && len(m.packs) > 0 {
		return archive.Pack{}, m.fail
	}
	sum := sha256.Sum256(data)
	p := archive.Pack{ID: strconv.Itoa(len(m.packs)), Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	m.packs[p.ID] = append([]byte(nil), data...)
	return p, ctx.Err()
}

func (m *memory) GetPack(ctx context.Context, p archive.Pack) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.packs[p.ID]
	if !ok {
		return nil, errors.New("no such pack")
	}
	return data, ctx.Err()
}

// create backs up dir and expects no trouble.
func create(t *testing.T, dir string) (*memory, []archive.Pack, archive.Report) {
	t.Helper()
	g := NewWithT(t)
	m := newMemory()
	report, packs, err := archive.Create(t.Context(), dir, m, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Unreadable).To(BeEmpty())
	return m, packs, report
}

// roundTrip backs up dir, restores it elsewhere, checks that the digests agree, and returns where.
func roundTrip(t *testing.T, dir string) (string, archive.Report) {
	t.Helper()
	g := NewWithT(t)
	m, packs, created := create(t, dir)
	to := t.TempDir()
	restored, err := archive.Restore(t.Context(), packs, m, to, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(restored.Digest).To(Equal(created.Digest))
	g.Expect(counts(restored)).To(Equal(counts(created)))
	for _, d := range []string{dir, to} {
		read, err := archive.Digest(t.Context(), d)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(read.Digest).To(Equal(created.Digest), d)
		g.Expect(counts(read)).To(Equal(counts(created)), d)
	}
	return to, created
}

func counts(r archive.Report) [5]int64 { return [5]int64{r.Files, r.Dirs, r.Links, r.Others, r.Bytes} }

// run runs a program in dir and returns its output.
func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s %v: %s", program, args, out)
	return string(out)
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	return run(t, dir, "bash", "-euc", script)
}

// picture describes a tree by other people's programs: names, types, modes, owners, times, sizes, targets, hard link
// groups (numbered by their first name), attributes, ACLs, capabilities and checksums.
func picture(t *testing.T, dir string) string {
	t.Helper()
	out := sh(t, dir, `
find . -printf '%y %#m %U:%G %T@ %n %l %p\0' | awk 'BEGIN{RS=ORS="\0"} /^d/{sub(/ [0-9]+  /," -  ")} {print}' | sort -z | tr '\0' '\n'
find . -type f -printf '%s %p\0' | sort -z | tr '\0' '\n'
find . ! -type d -links +1 -printf '%i %p\0' | sort -zk2 | awk 'BEGIN{RS="\0"} {i=$1; sub(/^[0-9]+ /,""); if(!(i in g)) g[i]=$0; print $0 " = " g[i]}'
find . -type f -print0 | sort -z | xargs -0r sha256sum
find . \( -type c -o -type b \) -print0 | sort -z | xargs -0r stat -c '%t:%T %n'
find . ! -type l -print0 | sort -z | xargs -0r getfattr -h -d -m '^(user\.|security\.capability)' -e hex 2>/dev/null
find . ! -type l -print0 | sort -z | xargs -0r getfacl -n 2>/dev/null
find . -type f -print0 | sort -z | xargs -0r getcap 2>/dev/null || true
`)
	return out
}

// expectSame compares the pictures line by line, to keep messages short.
func expectSame(t *testing.T, want, got string) {
	t.Helper()
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		NewWithT(t).Expect(b[i]).To(Equal(a[i]))
	}
	NewWithT(t).Expect(b).To(HaveLen(len(a)))
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	g := NewWithT(t)
	path := filepath.Join(dir, name)
	g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(path, []byte(content), 0o644)).To(Succeed())
}

package content

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// The user's cache does not grow with every directory that was ever restored into.
func TestIndexesOfLongAgoAreForgotten(t *testing.T) {
	g := NewWithT(t)
	dir, now := t.TempDir(), time.Now()
	for name, age := range map[string]time.Duration{"old": indexAge + time.Hour, "used": indexAge - time.Hour} {
		path := filepath.Join(dir, name)
		g.Expect(os.WriteFile(path, nil, 0o600)).To(Succeed())
		g.Expect(os.Chtimes(path, now.Add(-age), now.Add(-age))).To(Succeed())
	}
	g.Expect(os.Mkdir(filepath.Join(dir, "other"), 0o700)).To(Succeed())
	keepIndex(nil, filepath.Join(dir, "damaged"))
	g.Expect(os.ReadDir(dir)).To(HaveExactElements(HaveField("Name()", "other"), HaveField("Name()", "used")))
}

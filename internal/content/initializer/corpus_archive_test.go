package initializer_test

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// streams serves an archive that is made while it is sent, and says how many entries were asked for.
func streams(t *testing.T, entries int, next func(n int) (tar.Header, io.Reader)) (url string, sent func() int) {
	t.Helper()
	done := make(chan int, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := gzip.NewWriter(w)
		a := tar.NewWriter(c)
		n := 0
		for ; n < entries; n++ {
			h, content := next(n)
			if a.WriteHeader(&h) != nil {
				break
			}
			if content != nil {
				if _, err := io.CopyN(a, content, h.Size); err != nil {
					break
				}
			}
		}
		_ = c.Flush()
		select {
		case done <- n:
		default: // it was asked again
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() int { return <-done }
}

// patientDownload waits for a server that is busy making what it sends.
func patientDownload(t *testing.T) initializer.Download {
	t.Helper()
	d := newDownload(t)
	d.Stall = time.Minute
	return d
}

// zeros never end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Ten million entries and ten gigabytes are offered in full; they are refused when what the volume may have is used up, and not read on.
func TestS6_BombsThatAreSentInFull(t *testing.T) {
	for name, tt := range map[string]struct {
		entries int
		next    func(n int) (tar.Header, io.Reader)
		want    string
	}{
		"10 million directories": {10_000_000, func(n int) (tar.Header, io.Reader) {
			return tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("%d/", n), Mode: 0o755}, nil
		}, "there are more than the 3000 files and directories"},
		"10 million files": {10_000_000, func(n int) (tar.Header, io.Reader) {
			return tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d", n), Mode: 0o644}, nil
		}, "there are more than the 3000 files and directories"},
		"10 million names of one file": {10_000_000, func(n int) (tar.Header, io.Reader) {
			if n == 0 {
				return tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644}, nil
			}
			return tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprintf("%d", n), Linkname: "f"}, nil
		}, "there are more than the 3000 files and directories"},
		"one name ten million times": {10_000_000, func(int) (tar.Header, io.Reader) {
			return tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644}, nil
		}, "there are more than the 3000 files and directories"},
		"10 GB in files of 1 MB": {10_000, func(n int) (tar.Header, io.Reader) {
			return tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d", n), Mode: 0o644, Size: 1 << 20}, zeros{}
		}, `entry "16" does not fit: the volume may have 16 MiB`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			url, sent := streams(t, tt.entries, tt.next)
			target := newTarget(t)
			target.MaxBytes, target.MaxFiles = 16<<20, 3000
			_, err := patientDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: url, Unpack: true})
			g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring(tt.want))))
			g.Expect(sent()).To(BeNumerically("<", tt.entries), "the server was left in the middle")
		})
	}
}

// What is packed into nothing is read to its end by nobody.
func TestS6_ABombBehindTheLastEntry(t *testing.T) {
	g := NewWithT(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := gzip.NewWriter(w)
		a := tar.NewWriter(c)
		_ = a.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644})
		_ = a.Close()
		_, _ = io.Copy(c, zeros{}) // until nobody listens any more
	}))
	t.Cleanup(s.Close)
	target := newTarget(t)
	target.MaxBytes, target.MaxFiles = 16<<20, 100
	_, err := patientDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Unpack: true})
	g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring("goes on after its end"))))
}

// The special bits of what is unpacked do not arrive, nor does what runs as another user by its attributes.
func TestS6_NothingUnpackedIsPrivileged(t *testing.T) {
	g := NewWithT(t)
	s := newFileServer(t, packed(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "setuid", Mode: 0o4755, Uid: 0, Gid: 0},
		tar.Header{Typeflag: tar.TypeReg, Name: "setgid", Mode: 0o2755, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "sticky/", Mode: 0o1777},
	)["tar"])
	target := newTarget(t)
	_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Unpack: true})
	g.Expect(err).NotTo(HaveOccurred())
	for name, mode := range map[string]os.FileMode{"setuid": 0o755, "setgid": 0o755, "sticky": os.ModeDir | 0o755} {
		info, err := os.Lstat(filepath.Join(target.Dir, name))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(info.Mode()).To(Equal(mode), name)
	}
	expectOwner(t, target)
	g.Expect(attribute(filepath.Join(target.Dir, "setgid"))).To(BeEmpty())
}

func attribute(path string) string {
	value := make([]byte, 64)
	n, err := unix.Getxattr(path, "security.capability", value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

// What is larger than any file system takes is refused by its size alone.
func TestS6_SizesThatAreNone(t *testing.T) {
	g := NewWithT(t)
	url, _ := streams(t, 1, func(int) (tar.Header, io.Reader) {
		return tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, Size: 1 << 62}, strings.NewReader("")
	})
	_, err := patientDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: url, Unpack: true})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring(`entry "f" does not fit`))))
}

package initializer_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

func newDownload(t *testing.T) initializer.Download {
	t.Helper()
	return initializer.Download{
		Sandbox: newSandbox(t), AllowedSchemes: []string{"http", "https"}, Stall: time.Second, Pause: time.Millisecond, Deny: elsewhere(),
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// fileServer is a server that misbehaves on demand.
type fileServer struct {
	*httptest.Server
	data []byte

	mu   sync.Mutex
	seen []string
	// behave is asked first, with the number of the request, which counts from 1; true if it has answered.
	behave func(n int, w http.ResponseWriter, r *http.Request) bool
}

func newFileServer(t *testing.T, data []byte) *fileServer {
	t.Helper()
	s := &fileServer{data: data}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, strings.TrimSpace(r.Header.Get("Range")+" "+r.Header.Get("Authorization")))
	n := len(s.seen)
	s.mu.Unlock()
	if s.behave != nil && s.behave(n, w, r) {
		return
	}
	w.Header().Set("Etag", `"one"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
}

func (s *fileServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// cut answers with the first bytes of what there is, and drops the connection.
func (s *fileServer) cut(w http.ResponseWriter, n int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(s.data)))
	w.Header().Set("Etag", `"one"`)
	_, _ = w.Write(s.data[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestDownloadAFile(t *testing.T) {
	g := NewWithT(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
	s := newFileServer(t, data)
	sum := sha512.Sum512(data)
	target := newTarget(t)
	d := newDownload(t)
	var most int64
	d.Progress = func(_, bytes int64) { most = max(most, bytes) }
	result, err := d.Run(t.Context(), target, initializer.DownloadSpec{
		URL: s.URL + "/f?x=1", Path: "a/b/f.bin", Digest: "sha512:" + hex.EncodeToString(sum[:]),
		Credentials: &initializer.Credentials{Username: "u", Password: "p"},
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result).To(Equal(initializer.Result{Source: initializer.SourceDownload, Files: 1, Bytes: 8 << 20}))
	g.Expect([]byte(read(t, target.Dir, "a/b/f.bin"))).To(Equal(data))
	g.Expect(most).To(BeNumerically(">", 0))
	g.Expect(s.requests()).To(Equal([]string{"Basic dTpw"}))
	expectOwner(t, target)
}

func TestDownloadGoesOnWhereItWas(t *testing.T) {
	data := bytes.Repeat([]byte("x1y2z3"), 100_000)
	for name, tt := range map[string]struct {
		behave func(s *fileServer) func(n int, w http.ResponseWriter, r *http.Request) bool
		want   []string
	}{
		"dropped twice": {func(s *fileServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool {
				switch n {
				case 1:
					s.cut(w, 1000)
				case 2:
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 1000-%d/%d", len(data)-1, len(data)))
					w.Header().Set("Content-Length", strconv.Itoa(len(data)-1000))
					w.Header().Set("Etag", `"one"`)
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write(data[1000:5000])
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				return false
			}
		}, []string{"", "bytes=1000-", "bytes=5000-"}},
		"stalls": {func(s *fileServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					w.Header().Set("Content-Length", strconv.Itoa(len(s.data)))
					w.Header().Set("Etag", `"one"`)
					_, _ = w.Write(s.data[:2000])
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}
				return n == 1
			}
		}, []string{"", "bytes=2000-"}},
		"no ranges": {func(s *fileServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					s.cut(w, 3000)
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(s.data)))
				_, _ = w.Write(s.data)
				return true
			}
		}, []string{"", "bytes=3000-"}},
		"busy": {func(*fileServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n < 3 {
					http.Error(w, "no", []int{0, http.StatusTooManyRequests, http.StatusInternalServerError}[n])
				}
				return n < 3
			}
		}, []string{"", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, data)
			s.behave = tt.behave(s)
			target := newTarget(t)
			_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Path: "f", Digest: digestOf(data)})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect([]byte(read(t, target.Dir, "f"))).To(Equal(data))
			g.Expect(s.requests()).To(HaveLen(len(tt.want)))
			for i, want := range tt.want {
				g.Expect(s.requests()[i]).To(Equal(want))
			}
		})
	}
}

func TestDownloadErrors(t *testing.T) {
	data := []byte("content")
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(closed.Close()).To(Succeed())
	answers := func(code int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "s3cret words", code)
			return true
		}
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	for name, tt := range map[string]struct {
		behave func(int, http.ResponseWriter, *http.Request) bool
		url    string
		digest string
		unpack bool
		is     error
		want   string
	}{
		"401":        {answers(401), "", "", false, initializer.ErrUnauthorized, "the server answers 401 Unauthorized"},
		"403":        {answers(403), "", "", false, initializer.ErrUnauthorized, "the server answers 403 Forbidden"},
		"404":        {answers(404), "", "", false, initializer.ErrNotFound, "the server answers 404 Not Found"},
		"418":        {answers(418), "", "", false, initializer.ErrInvalid, "the server answers 418 I'm a teapot"},
		"429":        {answers(429), "", "", false, initializer.ErrFailed, "the server answers 429 Too Many Requests"},
		"500":        {answers(500), "", "", false, initializer.ErrFailed, "the server answers 500 Internal Server Error"},
		"nobody":     {nil, "http://" + closed.Addr().String() + "/f", "", false, initializer.ErrFailed, "connection refused"},
		"no host":    {nil, "http://no-such-host.invalid/f", "", false, initializer.ErrFailed, "no-such-host.invalid"},
		"TLS":        {nil, secure.URL + "/f", "", false, initializer.ErrFailed, "certificate"},
		"digest":     {nil, "", "sha256:" + strings.Repeat("a", 64), false, initializer.ErrInvalid, "has the digest " + digestOf(data) + ", not sha256:aaa"},
		"no archive": {nil, "", "", true, initializer.ErrInvalid, "it is no archive that can be unpacked: tar, tar.gz, tar.zst and zip can"},
		"stalls":     {func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, "", "", false, initializer.ErrFailed, "timeout awaiting response headers"},
		"loop": {func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/again", http.StatusFound)
			return true
		}, "", "", false, initializer.ErrInvalid, "more than 5 redirects"},
		"other scheme": {func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "ftp://example.com/f", http.StatusFound)
			return true
		}, "", "", false, initializer.ErrInvalid, "redirects to ftp"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, data)
			s.behave = tt.behave
			spec := initializer.DownloadSpec{URL: tt.url, Path: "f", Digest: tt.digest, Unpack: tt.unpack}
			if spec.URL == "" {
				spec.URL = s.URL + "/f"
			}
			_, err := newDownload(t).Run(t.Context(), newTarget(t), spec)
			g.Expect(err).To(And(MatchError(tt.is), MatchError(ContainSubstring(tt.want))))
			g.Expect(err.Error()).NotTo(ContainSubstring("s3cret"))
		})
	}
}

// A file that changed meanwhile must not be put together of two.
func TestDownloadIsOneFile(t *testing.T) {
	g := NewWithT(t)
	s := newFileServer(t, bytes.Repeat([]byte("a"), 10_000))
	s.behave = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			s.cut(w, 5000)
		}
		w.Header().Set("Etag", `"two"`)
		_, _ = w.Write(bytes.Repeat([]byte("b"), 10_000))
		return true
	}
	_, err := newDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
	g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring("has another file now or cannot go on"))))
}

func TestS8_DownloadRedirectGetsNoCredentials(t *testing.T) {
	g := NewWithT(t)
	evil := newFileServer(t, []byte("x"))
	front := newFileServer(t, nil)
	front.behave = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, evil.URL+"/f", http.StatusFound)
		return true
	}
	target := newTarget(t)
	spec := initializer.DownloadSpec{URL: front.URL, Path: "f", Credentials: &initializer.Credentials{Bearer: "s3cret"}}
	_, err := newDownload(t).Run(t.Context(), target, spec)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(front.requests()).To(Equal([]string{"Bearer s3cret"}))
	g.Expect(evil.requests()).To(Equal([]string{""}))
}

func TestS6_DownloadRefusesInjection(t *testing.T) {
	for name, spec := range map[string]initializer.DownloadSpec{
		"file":        {URL: "file:///etc/passwd", Path: "f"},
		"ssh":         {URL: "ssh://example.com/f", Path: "f"},
		"password":    {URL: "https://u:hunter2@example.com/f", Path: "f"},
		"newline":     {URL: "https://example.com/\nf", Path: "f"},
		"nowhere":     {URL: "https://example.com/f"},
		"up":          {URL: "https://example.com/f", Path: "../f"},
		"absolute":    {URL: "https://example.com/f", Path: "/etc/f"},
		"unpack up":   {URL: "https://example.com/f", Path: "a/../../f", Unpack: true},
		"digest":      {URL: "https://example.com/f", Path: "f", Digest: "md5:abc"},
		"digest long": {URL: "https://example.com/f", Path: "f", Digest: "sha256:" + strings.Repeat("a", 63)},
		"header":      {URL: "https://example.com/f", Path: "f", Credentials: &initializer.Credentials{Bearer: "a\r\nHost: evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := initializer.Download{}.Run(t.Context(), newTarget(t), spec) // not even a sandbox is needed
			g.Expect(err).To(MatchError(initializer.ErrInvalid))
			g.Expect(err.Error()).NotTo(ContainSubstring("hunter2"))
		})
	}
}

// packed makes archives of the same entries in every format.
func packed(t *testing.T, entries ...tar.Header) map[string][]byte {
	t.Helper()
	g := NewWithT(t)
	var plain, zipped, gz, zst bytes.Buffer
	w := tar.NewWriter(&plain)
	z := zip.NewWriter(&zipped)
	for _, h := range entries {
		content := []byte(h.Name)
		if h.Typeflag != tar.TypeReg {
			content = nil
		}
		h.Size = int64(len(content))
		g.Expect(w.WriteHeader(&h)).To(Succeed())
		_, err := w.Write(content)
		g.Expect(err).NotTo(HaveOccurred())
		if h.Typeflag == tar.TypeLink {
			continue // zip has none
		}
		if h.Typeflag == tar.TypeSymlink {
			content = []byte(h.Linkname)
		}
		zh, err := zip.FileInfoHeader(h.FileInfo())
		g.Expect(err).NotTo(HaveOccurred())
		zh.Name, zh.Method = h.Name, zip.Deflate
		f, err := z.CreateHeader(zh)
		g.Expect(err).NotTo(HaveOccurred())
		if h.Typeflag != tar.TypeDir {
			_, err = f.Write(content)
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	g.Expect(errors.Join(w.Close(), z.Close())).To(Succeed())
	c := gzip.NewWriter(&gz)
	_, err := c.Write(plain.Bytes())
	g.Expect(errors.Join(err, c.Close())).To(Succeed())
	e, err := zstd.NewWriter(&zst)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = e.Write(plain.Bytes())
	g.Expect(errors.Join(err, e.Close())).To(Succeed())
	return map[string][]byte{"tar": plain.Bytes(), "tar.gz": gz.Bytes(), "tar.zst": zst.Bytes(), "zip": zipped.Bytes()}
}

func TestDownloadUnpacks(t *testing.T) {
	when := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	odd := strings.Repeat("n", 250) + "\xff.txt" // 255 bytes, not UTF-8
	archives := packed(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./top/", Mode: 0o500, ModTime: when},
		tar.Header{Typeflag: tar.TypeReg, Name: "./top/file", Mode: 0o6755, ModTime: when},
		tar.Header{Typeflag: tar.TypeReg, Name: "top/deep/er/plain", Mode: 0o666, ModTime: when},
		tar.Header{Typeflag: tar.TypeReg, Name: odd, Mode: 0o600, ModTime: when, Format: tar.FormatGNU},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "../../etc/passwd", Mode: 0o777, ModTime: when},
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "top/file", ModTime: when},
	)
	for kind, data := range archives {
		t.Run(kind, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, data)
			target := newTarget(t)
			result, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Path: "in/here", Unpack: true, Digest: digestOf(data)})
			g.Expect(err).NotTo(HaveOccurred())
			dir := filepath.Join(target.Dir, "in/here")
			g.Expect(read(t, dir, "top/file")).To(Equal("./top/file"))
			g.Expect(read(t, dir, odd)).To(Equal(odd))
			g.Expect(os.Readlink(filepath.Join(dir, "link"))).To(Equal("../../etc/passwd"), "where it leads is up to who follows it")
			for name, mode := range map[string]fs.FileMode{"top": fs.ModeDir | 0o700, "top/file": 0o755, "top/deep/er/plain": 0o644, odd: 0o600} {
				info, err := os.Lstat(filepath.Join(dir, name))
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(info.Mode()).To(Equal(mode), name)
				if name != "top/deep" {
					g.Expect(info.ModTime().UTC()).To(Equal(when), name)
				}
				var st unix.Stat_t
				g.Expect(unix.Lstat(filepath.Join(dir, name), &st)).To(Succeed())
				g.Expect([]uint32{st.Uid, st.Gid}).To(Equal([]uint32{owner, owner + 1}))
			}
			want := int64(4)
			if kind != "zip" {
				want = 5
				g.Expect(read(t, dir, "hard")).To(Equal("./top/file"))
			}
			g.Expect(result.Files).To(Equal(want))
		})
	}
}

// mounted returns a target on a file system of its own, of so many bytes and inodes.
func mounted(t *testing.T, options string) initializer.Target {
	t.Helper()
	g := NewWithT(t)
	target := newTarget(t)
	g.Expect(unix.Mount("tmpfs", target.Dir, "tmpfs", 0, options)).To(Succeed())
	t.Cleanup(func() { g.Expect(unix.Unmount(target.Dir, 0)).To(Succeed()) })
	return target
}

func TestS6_HostileArchives(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	for name, tt := range map[string]struct {
		entries []tar.Header
		want    string
		tarOnly bool
	}{
		"up":                    {[]tar.Header{reg("../evil")}, `entry "../evil" has a name that leads out`, false},
		"up inside":             {[]tar.Header{reg("a/../../evil")}, `entry "a/../../evil" has a name that leads out`, false},
		"absolute":              {[]tar.Header{reg("/evil")}, `entry "/evil" has an absolute name`, false},
		"through a link":        {[]tar.Header{link("way", "OUTSIDE"), reg("way/evil")}, `entry "way/evil" leads through a link or a file`, false},
		"through a link inside": {[]tar.Header{link("way", "."), reg("way/evil")}, `entry "way/evil" leads through a link or a file`, false},
		"through two":           {[]tar.Header{link("a", "b"), link("b", "OUTSIDE"), reg("a/evil")}, `entry "a/evil" leads through a link or a file`, false},
		"directory as a link":   {[]tar.Header{link("d", "OUTSIDE"), {Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}}, `entry "d"`, false},
		"hard link out":         {[]tar.Header{hard("evil", "../secret")}, `leads out`, true},
		"hard link absolute":    {[]tar.Header{hard("evil", "/etc/passwd")}, `absolute name`, true},
		"hard link by a link":   {[]tar.Header{link("way", "OUTSIDE"), hard("evil", "way/secret")}, `leads through a link or a file`, true},
		"hard link to a link":   {[]tar.Header{link("way", "OUTSIDE/secret"), hard("evil", "way")}, `"way" is no file of the archive`, true},
		"character device":      {[]tar.Header{{Typeflag: tar.TypeChar, Name: "evil", Devmajor: 1, Devminor: 3}}, `entry "evil" is of type`, true},
		"block device":          {[]tar.Header{{Typeflag: tar.TypeBlock, Name: "evil", Devmajor: 8}}, `entry "evil" is of type`, true},
		"pipe":                  {[]tar.Header{{Typeflag: tar.TypeFifo, Name: "evil"}}, `entry "evil" is of type`, true},
		"long name":             {[]tar.Header{reg(strings.Repeat("n", 256))}, "is too long", false},
		"deep nesting":          {[]tar.Header{reg(strings.Repeat("d/", 3000) + "f")}, "is empty, too long or has a zero in it", false},
		"file as a directory":   {[]tar.Header{reg("f"), reg("f/evil")}, `entry "f/evil" leads through a link or a file`, false},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			NewWithT(t).Expect(os.Chmod(filepath.Dir(outside), 0o777)).To(Succeed())
			NewWithT(t).Expect(os.Chmod(outside, 0o777)).To(Succeed())
			write(t, outside, "secret", "s3cret")
			for i := range tt.entries {
				tt.entries[i].Linkname = strings.Replace(tt.entries[i].Linkname, "OUTSIDE", outside, 1)
			}
			for kind, data := range packed(t, tt.entries...) {
				if kind == "zip" && tt.tarOnly {
					continue
				}
				g := NewWithT(t)
				s := newFileServer(t, data)
				target := newTarget(t)
				_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Unpack: true})
				g.Expect(err).To(And(MatchError(ContainSubstring(tt.want)), MatchError(initializer.ErrInvalid)), kind)
				g.Expect(os.ReadDir(outside)).To(HaveLen(1))
				g.Expect(os.ReadDir(filepath.Dir(target.Dir))).To(HaveLen(1))
			}
		})
	}
}

// bomb is a tar.gz of one file of zeros.
func bomb(t *testing.T, size int64) []byte {
	t.Helper()
	g := NewWithT(t)
	var b bytes.Buffer
	c, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	g.Expect(err).NotTo(HaveOccurred())
	w := tar.NewWriter(c)
	g.Expect(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Mode: 0o644, Size: size})).To(Succeed())
	zeros := make([]byte, 1<<20)
	for range min(size>>20, 64) { // what follows is never read
		_, err := w.Write(zeros)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(c.Close()).To(Succeed())
	return b.Bytes()
}

func TestS6_Bombs(t *testing.T) {
	many := []tar.Header{}
	for i := range 200 {
		many = append(many, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d/", i), Mode: 0o755})
	}
	for name, tt := range map[string]struct {
		data  []byte
		mount string
		files int64
		want  string
	}{
		"10 GB on a small volume":    {bomb(t, 10<<30), "size=8m", 0, `entry "bomb" does not fit: the volume may have `},
		"too many by the volume":     {packed(t, many...)["tar.zst"], "nr_inodes=100", 0, `there are more than the `},
		"too many by the limit":      {packed(t, many...)["zip"], "", 100, `there are more than the 100 files and directories`},
		"10 GB, and there is enough": {bomb(t, 10<<30), "", 0, `entry "bomb" does not fit: the volume may have 16 MiB`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, tt.data)
			target := newTarget(t)
			if tt.mount != "" {
				target = mounted(t, tt.mount)
			}
			target.MaxBytes, target.MaxFiles = 16<<20, tt.files
			_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Unpack: true})
			g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring(tt.want))))
		})
	}
}

func TestDownloadOntoAFullVolume(t *testing.T) {
	g := NewWithT(t)
	s := newFileServer(t, bytes.Repeat([]byte("x"), 4<<20))
	_, err := newDownload(t).Run(t.Context(), mounted(t, "size=1m"), initializer.DownloadSpec{URL: s.URL, Path: "f"})
	g.Expect(err).To(And(MatchError(initializer.ErrFull), MatchError(ContainSubstring("enlarge spec.volume.size"))))
}

func TestDownloadIsStopped(t *testing.T) {
	g := NewWithT(t)
	s := newFileServer(t, nil)
	d := newDownload(t)
	d.Stall = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	s.behave = func(_ int, _ http.ResponseWriter, r *http.Request) bool { cancel(); <-r.Context().Done(); return true }
	_, err := d.Run(ctx, newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
	g.Expect(err).To(And(MatchError(initializer.ErrTimeout), MatchError(context.Canceled)))
}

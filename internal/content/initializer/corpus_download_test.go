package initializer_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// raw answers with bytes that no library would send, and hangs up.
func raw(t *testing.T, w http.ResponseWriter, write func(w io.Writer)) {
	t.Helper()
	conn, _, err := http.NewResponseController(w).Hijack()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	write(conn)
}

// partial answers a request that goes on with headers that the test gives.
func partial(w http.ResponseWriter, contentRange string, body []byte) {
	w.Header().Set("Etag", `"one"`)
	if contentRange != "" {
		w.Header().Set("Content-Range", contentRange)
	}
	w.WriteHeader(http.StatusPartialContent)
	w.(http.Flusher).Flush() // so that nothing says how much there is
	_, _ = w.Write(body)
}

// What was begun goes on with the right part of the same file, or not at all.
func TestS6_RangesThatLie(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	const no = "it broke off, and the server does not go on where it was"
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		is     error
		want   string
	}{
		"more than it says": {func(w http.ResponseWriter) {
			partial(w, "bytes 1000-9999/10000", append(data[1000:len(data):len(data)], "more"...))
		}, initializer.ErrFailed, "the server sends more than the 10000 bytes that it says there are"},
		"from the beginning": {func(w http.ResponseWriter) { partial(w, "bytes 0-9999/10000", data) }, initializer.ErrFailed, no},
		"another size":       {func(w http.ResponseWriter) { partial(w, "bytes 1000-19999/20000", data) }, initializer.ErrFailed, no},
		"a size below zero":  {func(w http.ResponseWriter) { partial(w, "bytes 1000--2/-1", data) }, initializer.ErrFailed, no},
		"without a range":    {func(w http.ResponseWriter) { partial(w, "", data[1000:]) }, initializer.ErrFailed, no},
		"of several parts": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			partial(w, "", []byte("--x\r\nContent-Range: bytes 1000-9999/10000\r\n\r\n"))
		}, initializer.ErrFailed, no},
		"no such range": {func(w http.ResponseWriter) { http.Error(w, "no", http.StatusRequestedRangeNotSatisfiable) }, initializer.ErrInvalid, "the server answers 416 Requested Range Not Satisfiable"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, data)
			s.behave = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					s.cut(w, 1000)
				}
				tt.answer(w)
				return true
			}
			_, err := newDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
			g.Expect(err).To(And(MatchError(tt.is), MatchError("download "+s.URL+": "+tt.want)))
			g.Expect(s.requests()).To(HaveLen(2))
		})
	}
	t.Run("a part that nobody asked for", func(t *testing.T) {
		g := NewWithT(t)
		s := newFileServer(t, data)
		s.behave = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			partial(w, "bytes 0-9999/10000", data)
			return true
		}
		_, err := newDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
		g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError("download "+s.URL+": the server answers 206 Partial Content")))
	})
}

// A server that never said how large the file is does so when it goes on; what ends before is not the file.
func TestDownloadKnowsTheSizeFromAPart(t *testing.T) {
	g := NewWithT(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	s := newFileServer(t, data)
	s.behave = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		switch n {
		case 1: // no length, and no end
			w.Header().Set("Etag", `"one"`)
			_, _ = w.Write(data[:1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case 2: // as a server of old times: the end of the connection is that of the part
			raw(t, w, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "HTTP/1.0 206 Partial Content\r\nEtag: \"one\"\r\nContent-Range: bytes 1000-9999/10000\r\n\r\n%s", data[1000:1500])
			})
			return true
		}
		return false
	}
	target := newTarget(t)
	_, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Path: "f"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read(t, target.Dir, "f")).To(Equal(string(data)))
	g.Expect(s.requests()).To(Equal([]string{"", "bytes=1000-", "bytes=1500-"}))
}

// Answers that never come to the point end, each with one reason.
func TestS6_AnswersWithoutAnEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		write func(w io.Writer)
		want  string
	}{
		"headers": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			_ = endlessly(w, []byte("X-Header: value\r\n"))
		}, "server response headers exceeded 262144 bytes"},
		"one header": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX-Header: ")
			_ = endlessly(w, []byte("x"))
		}, "server response headers exceeded 262144 bytes"},
		"early hints": {func(w io.Writer) { _ = endlessly(w, []byte("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")) }, "server response headers exceeded 262144 bytes"},
		"no HTTP":     {func(w io.Writer) { _ = endlessly(w, []byte("SSH-2.0-OpenSSH\r\n")) }, "malformed HTTP"},
		"a chunk of 1 TB": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\nx")
		}, "it broke off, and the server has another file now or cannot go on"},
		"two lengths": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")
		}, "Content-Length"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, nil)
			s.behave = func(_ int, w http.ResponseWriter, _ *http.Request) bool { raw(t, w, tt.write); return true }
			d := newDownload(t)
			d.Stall = time.Minute
			_, err := d.Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
			g.Expect(err).To(And(MatchError(initializer.ErrFailed), MatchError(ContainSubstring(tt.want)), MatchError(HavePrefix("download "+s.URL+": "))))
			g.Expect(len(s.requests())).To(BeNumerically("<=", 6))
		})
	}
}

// Who sends a byte now and then is listened to until the time of the whole is over, and no longer.
func TestS7_AServerThatDrips(t *testing.T) {
	g := NewWithT(t)
	s := newFileServer(t, nil)
	s.behave = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		for tick := time.Tick(50 * time.Millisecond); r.Context().Err() == nil; <-tick {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		}
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := newDownload(t).Run(ctx, newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
	g.Expect(err).To(And(MatchError(initializer.ErrTimeout), MatchError("download "+s.URL+" was stopped: context deadline exceeded")))
	g.Expect(s.requests()).To(HaveLen(1))
}

// What a server packs for the way is not unpacked: a few kilobytes would be any size, and the digest is that of what was sent.
func TestS6_ABombOnTheWay(t *testing.T) {
	g := NewWithT(t)
	var b bytes.Buffer
	c := gzip.NewWriter(&b)
	_, err := io.CopyN(c, zeros{}, 64<<20)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(c.Close()).To(Succeed())
	s := newFileServer(t, b.Bytes())
	accepts := make(chan string, 1)
	s.behave = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		accepts <- r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
		_, _ = w.Write(b.Bytes())
		return true
	}
	target := newTarget(t)
	target.MaxBytes = 1 << 20
	result, err := newDownload(t).Run(t.Context(), target, initializer.DownloadSpec{URL: s.URL, Path: "f", Digest: digestOf(b.Bytes())})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Bytes).To(Equal(int64(b.Len())))
	g.Expect(<-accepts).To(Equal("identity"))
}

// However a redirect writes it, nothing of the cloud's metadata, of this machine's sockets or files is asked for.
func TestS6_RedirectsToWhereNobodyGoes(t *testing.T) {
	const metadata = "the daemon's configuration denies the address "
	for to, want := range map[string]string{
		"http://169.254.169.254/latest/meta-data/": metadata + "169.254.169.254",
		"//169.254.169.254/latest/meta-data/":      metadata + "169.254.169.254",
		"http://[::ffff:169.254.169.254]/":         metadata + "169.254.169.254",
		"http://[::ffff:a9fe:a9fe]/":               metadata + "169.254.169.254",
		"http://169.254.169.254:80@169.254.1.1/":   metadata + "169.254.1.1",
		"unix:///var/run/docker.sock":              "the server redirects to unix, which is not allowed",
		"http+unix://run/docker.sock":              "the server redirects to http+unix, which is not allowed",
		"file:///etc/passwd":                       "the server redirects to file, which is not allowed",
		"gopher://127.0.0.1:1/":                    "the server redirects to gopher, which is not allowed",
		"javascript:alert(1)":                      "the server redirects to javascript, which is not allowed",
	} {
		t.Run(to, func(t *testing.T) {
			g := NewWithT(t)
			s := newFileServer(t, nil)
			s.behave = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusFound)
				return true
			}
			_, err := newDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(HavePrefix("download "+s.URL+": "+want))))
			g.Expect(s.requests()).To(HaveLen(1))
		})
	}
}

// A server that wants to be left alone for long is asked by the next attempt, and the reason is its answer, not that time was over.
func TestDownloadThatIsToWait(t *testing.T) {
	for after, want := range map[string]string{"3600": "1h0m0s", "99999999999": "24h0m0s"} {
		g := NewWithT(t)
		s := newFileServer(t, nil)
		s.behave = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", after)
			http.Error(w, "no", http.StatusTooManyRequests)
			return true
		}
		_, err := newDownload(t).Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: s.URL, Path: "f"})
		g.Expect(err).To(And(MatchError(initializer.ErrFailed),
			MatchError("download "+s.URL+": the server answers 429 Too Many Requests, and wants to be left alone for "+want)))
		g.Expect(s.requests()).To(HaveLen(1))
	}
}

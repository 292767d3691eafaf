package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // the daemon has it, by other packages
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
)

const servicePath = "/wsdaemon.daemon.v1.WorkspaceService/"

// frame is a message as gRPC frames it.
func frame(compressed byte, length int, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(length)), message...)
}

func zipped(message []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(message)
	_ = z.Close()
	return out.Bytes()
}

// post sends the body of a call over the socket, as a client that knows nothing of gRPC, and returns what came of it.
func (w *world) post(path, kind, encoding string, body []byte) string {
	w.t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.server.Config.Socket)
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://daemon"+path, bytes.NewReader(body))
	w.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", kind)
	request.Header.Set("TE", "trailers")
	if encoding != "" {
		request.Header.Set("Grpc-Encoding", encoding)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err.Error()
	}
	header := response.Header
	if header.Get("Grpc-Status") == "" {
		header = response.Trailer
	}
	return fmt.Sprintf("%d %s %s", response.StatusCode, header.Get("Grpc-Status"), header.Get("Grpc-Message"))
}

// What is no call, or a broken one, is refused as what it is, is in the audit log as far as it got, and the next call is served.
func TestBrokenCallsStopNothing(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	good, err := proto.Marshal(&daemonv1.GetRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	const grpcKind = "application/grpc+proto"
	for name, c := range map[string]struct {
		path, kind, encoding string
		body                 []byte
		want                 string
	}{
		"a good one":               {"Get", grpcKind, "", frame(0, len(good), good), `^200 0 $`},
		"compressed":               {"Get", grpcKind, "gzip", frame(1, len(zipped(good)), zipped(good)), `^200 0 $`},
		"no message":               {"Get", grpcKind, "", nil, `^200 13 cardinality violation`},
		"half a header":            {"Get", grpcKind, "", []byte{0, 0}, `^200 13 unexpected EOF$`},
		"less than it says":        {"Get", grpcKind, "", frame(0, len(good)+1, good), `^200 13 unexpected EOF$`},
		"more than may be":         {"Get", grpcKind, "", frame(0, 1<<31, good), `^200 8 grpc: received message larger than max`},
		"a flag that is none":      {"Get", grpcKind, "", frame(7, len(good), good), `^200 13 grpc: received unexpected payload format`},
		"compressed by nothing":    {"Get", grpcKind, "", frame(1, len(good), good), `^200 13 grpc: compressed flag set with identity or empty encoding`},
		"compressed by nobody":     {"Get", grpcKind, "best", frame(1, len(good), good), `^200 12 grpc: Decompressor is not installed for grpc-encoding`},
		"compressed in words only": {"Get", grpcKind, "gzip", frame(1, len(good), good), `^200 13 grpc: failed to decompress`},
		"a bomb":                   {"Get", grpcKind, "gzip", frame(1, len(zipped(make([]byte, 32<<20))), zipped(make([]byte, 32<<20))), `^200 8 grpc: .*larger than max`},
		"no method":                {"Delete", grpcKind, "", frame(0, 0, nil), `^200 12 unknown method Delete`},
		"a method of many words":   {strings.Repeat("x/", 3000), grpcKind, "", frame(0, 0, nil), `^200 12 unknown service`},
		"JSON":                     {"Get", "application/json", "", []byte("{}"), `^415 `},
		"noise for a message":      {"Watch", grpcKind, "", frame(0, 4, []byte("\xff\xff\xff\x01")), `^200 13 grpc: .*unmarshal`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(w.post(servicePath+c.path, c.kind, c.encoding, c.body)).To(MatchRegexp(c.want))
			g.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
		})
	}
	w.Eventually(w.log.String).Should(And(
		MatchRegexp(`audit .*"caller"="uid 0, pid \d+" "method"="Get" "namespace"="" "workspace"="" "result"="Unknown" .*"message"="nothing came that is a request of this method"`),
		ContainSubstring(`"method"="other"`), ContainSubstring(`"method"="Watch" "namespace"="" "workspace"="" "result"="Internal"`)))
	w.Eventually(w.running).Should(BeZero())
}

// rude speaks HTTP/2 over the socket by hand.
type rude struct {
	*http2.Framer
	conn net.Conn
}

func (w *world) rude() *rude {
	w.t.Helper()
	c, err := (&net.Dialer{}).DialContext(w.t.Context(), "unix", w.server.Config.Socket)
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, http2.ClientPreface)
	w.Expect(err).NotTo(HaveOccurred())
	r := &rude{http2.NewFramer(c, c), c}
	r.AllowIllegalWrites = true
	w.Expect(r.WriteSettings()).To(Succeed())
	return r
}

// headers are those of a call, and more.
func headers(method string, more ...hpack.HeaderField) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: servicePath + method}, {Name: ":authority", Value: "daemon"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = encoder.WriteField(f)
	}
	return block.Bytes()
}

// count reads until the daemon ends the connection or is silent for a while, and counts what comes, by kind.
func (r *rude) count(silence time.Duration) map[string]int {
	seen := map[string]int{}
	for {
		_ = r.conn.SetReadDeadline(time.Now().Add(silence))
		f, err := r.ReadFrame()
		if err != nil {
			return seen
		}
		kind := f.Header().Type.String()
		if reset, ok := f.(*http2.RSTStreamFrame); ok {
			kind += " " + reset.ErrCode.String()
		}
		seen[kind]++
	}
}

// Whatever frames come, the connection that they come by is the most that ends.
func TestBrokenFramesStopNothing(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	for name, send := range map[string]func(r *rude){
		"a frame without an end": func(r *rude) { _, _ = r.conn.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}) },
		"a frame of no kind":     func(r *rude) { _ = r.WriteRawFrame(0xee, 0xff, 3, make([]byte, 1000)) },
		"data of no call":        func(r *rude) { _ = r.WriteData(1, true, []byte("x")) },
		"data of the connection": func(r *rude) { _ = r.WriteRawFrame(http2.FrameData, 0, 0, []byte("x")) },
		"headers that are none": func(r *rude) {
			_ = r.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte("\xff\xff\xff\xff\xff\xff"))
		},
		"settings that cannot be": func(r *rude) { _ = r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) },
		"a window without an end": func(r *rude) { _ = r.WriteWindowUpdate(0, 1<<31-1); _ = r.WriteWindowUpdate(0, 1<<31-1) },
		"an even call": func(r *rude) {
			_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 2, BlockFragment: headers("Get"), EndHeaders: true})
		},
		"headers that never end":      neverEnding,
		"headers that are very large": func(r *rude) { large(r) },
		"many pings":                  func(r *rude) { pings(r) },
		"a call that is reset":        func(r *rude) { resets(r) },
	} {
		t.Run(name, func(t *testing.T) {
			r := w.rude()
			send(r)
			r.count(200 * time.Millisecond)
			NewWithT(t).Expect(r.conn.Close()).To(Succeed())
			NewWithT(t).Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
		})
	}
	w.Eventually(w.running).Should(BeZero())
	w.Expect(counted(w, "ws_daemon_service_panics_total")).To(BeZero())
}

// neverEnding sends headers in a thousand parts, and no last one.
func neverEnding(r *rude) {
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("Get")})
	for range 1000 {
		if r.WriteContinuation(1, false, bytes.Repeat([]byte{0}, 1000)) != nil {
			return
		}
	}
}

func large(r *rude) {
	block := headers("Get", hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 1<<20)})
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16000]})
	for at := 16000; at < len(block); at += 16000 {
		if r.WriteContinuation(1, at+16000 >= len(block), block[at:min(at+16000, len(block))]) != nil {
			return
		}
	}
}

func pings(r *rude) {
	for range 1000 {
		if r.WritePing(false, [8]byte{}) != nil {
			return
		}
	}
}

func resets(r *rude) {
	for i := range 300 {
		id := uint32(2*i + 1)
		if r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers("Watch"), EndHeaders: true}) != nil || r.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			return
		}
	}
}

// A client that minds no limits gets no more calls by one connection than there may be.
func TestAConnectionHasSoManyCalls(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	r := w.rude()
	for i := range 1000 {
		w.Expect(r.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: headers("Watch"), EndHeaders: true})).To(Succeed())
	}
	w.Expect(r.count(time.Second)).To(HaveKeyWithValue("RST_STREAM REFUSED_STREAM", 1000-maxStreams))
	w.Expect(w.running()).To(Equal(maxStreams))
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
	w.Expect(r.conn.Close()).To(Succeed())
	w.Eventually(w.running).Should(BeZero())
}

// One caller has so many calls, however many connections he makes; others have theirs.
func TestACallerHasSoManyCalls(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := w.serveNetwork(10_000)
	cert := ours.issue("reader")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for c := range maxCalls / maxStreams {
		reader := w.remote(mutual(ours, cert))
		for range maxStreams {
			stream, err := reader.Watch(ctx, &daemonv1.WatchRequest{Namespace: "team-a"})
			w.Expect(err).NotTo(HaveOccurred())
			w.Expect(second(stream.Recv())).To(Succeed(), "connection %d", c)
		}
	}
	w.Expect(outcome(get(w.remote(mutual(ours, cert)), "team-a", "web"))).To(Equal("ResourceExhausted: 256 calls of the caller run: end some of them first"))
	w.Expect(outcome(get(w.remote(mutual(ours, ours.issue("", withURI(manager)))), "team-a", "web"))).To(Equal("OK"))
	cancel()
	w.Eventually(func() string { return outcome(get(w.remote(mutual(ours, cert)), "team-a", "web")) }).Should(Equal("OK"))
}

// Metadata is bounded, and ignored.
func TestLargeMetadataIsRefused(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	ask := func(size int) string {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", size))
		_, err := w.local().Get(ctx, &daemonv1.GetRequest{Namespace: "team-a", Name: "web"})
		return outcome(err)
	}
	w.Expect(ask(maxHeaders / 2)).To(Equal("OK"))
	w.Expect(ask(maxHeaders)).To(Equal("Internal: header list size to send violates the maximum size (16384 bytes) set by server"))
	w.Expect(ask(0)).To(Equal("OK"))
}

// Whoever begins calls and asks for nothing is left soon, also of methods with one answer.
func TestCallsThatAskForNothingEnd(t *testing.T) {
	noLeaks(t)
	w := newWorld(t)
	w.server.pauses.request = 100 * time.Millisecond
	w.start()
	for _, method := range []string{"Get", "Watch", "Export"} {
		stream, err := w.connect().NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, servicePath+method)
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(status.Code(stream.RecvMsg(&daemonv1.GetResponse{}))).To(Equal(codes.Canceled), method)
	}
	w.Eventually(w.running).Should(BeZero())
}

// Calls that are none count like others, and one who makes too many of any kind fills no log.
func TestBrokenCallsAreCounted(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := newAuthority(w, "ours")
	w.network(ours.issue("daemon"), ours)
	w.start()
	w.server.Configure(config.Service{Rights: rights(), RequestsPerSecond: 1, Exports: 1})
	conn, err := dial(w.server.Config.Address, mutual(ours, ours.issue("reader")))
	w.Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	refused := 0
	for range 500 {
		noise := []byte{0xff, 0xff, 0xff, 0x01}
		err := conn.Invoke(t.Context(), servicePath+"Get", &noise, &[]byte{}, grpc.ForceCodec(bytesCodec{}))
		if status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	w.Expect(refused).To(BeNumerically(">", 400))
	w.Eventually(func() float64 { return counted(w, "ws_daemon_service_calls_total") }).Should(BeNumerically(">=", 500), "each is counted")
	w.Expect(strings.Count(w.log.String(), `"result"="ResourceExhausted"`)).To(BeNumerically("<", 100), "not each is logged")
}

// Clients that never read take little memory, however much there is for them.
func TestWhoNeverReadsTakesLittle(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	for i := range 200 { // 6 MB for each: Ready and its condition have the words
		w.change(workspace("team-a", fmt.Sprintf("large-%d", i), not("Restoring", strings.Repeat("x", 15_000))))
	}
	var cached v1.WorkspaceList
	w.Expect(w.client.List(t.Context(), &cached)).To(Succeed())
	w.server.Client = interceptor.NewClient(w.client, interceptor.Funcs{ // as the cache does it, which copies no text
		List: func(_ context.Context, _ client.WithWatch, list client.ObjectList, _ ...client.ListOption) error {
			list.(*v1.WorkspaceList).Items = slices.Clone(cached.Items)
			return nil
		},
	})
	w.start()
	before := inUse()
	const lazy = 100
	for range lazy {
		r := w.rude() // who says that there is room for everything, and takes nothing
		w.Expect(r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})).To(Succeed())
		w.Expect(r.WriteWindowUpdate(0, 1<<30)).To(Succeed())
		w.Expect(r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("Watch"), EndHeaders: true})).To(Succeed())
		w.Expect(r.WriteData(1, true, frame(0, 0, nil))).To(Succeed())
	}
	w.Eventually(w.running).Should(Equal(lazy))
	for i := range 1000 { // and all of it again, and again
		w.change(workspace("team-a", fmt.Sprintf("large-%d", i%200), not("Restoring", strings.Repeat("y", 15_000))))
	}
	w.Expect(outcome(get(w.local(), "team-a", "web"))).To(Equal("OK"))
	w.Eventually(w.running).Should(Equal(lazy), "the last call was over before it was counted out")
	w.Expect(inUse()-before).To(BeNumerically("<", 64<<20), "of 600 MB, and 3 GB of changes")
	w.server.calls.end(errUnread)
	w.Eventually(w.running).Should(BeZero())
}

// inUse is how much memory is reachable, in bytes.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

package server

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/state"
)

func TestListBackupsAreInPagesNewestFirst(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"), workspace("team-b", "web")).start()
	list := func(r *daemonv1.ListBackupsRequest) (pages []string) {
		for {
			page, err := w.local().ListBackups(t.Context(), r)
			w.Expect(err).NotTo(HaveOccurred())
			var words []string
			for _, b := range page.GetBackups() {
				word := fmt.Sprintf("%s %d/%d/%d %t", b.GetName(), b.GetFiles(), b.GetDirectories(), b.GetBytes(), b.GetComplete())
				if b.GetDamage() != "" {
					word = b.GetName() + " damaged"
				}
				words = append(words, word)
			}
			pages = append(pages, strings.Join(words, ", "))
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				return pages
			}
		}
	}
	web := func(size int32) *daemonv1.ListBackupsRequest {
		return &daemonv1.ListBackupsRequest{Namespace: "team-a", Name: "web", PageSize: size}
	}
	w.Expect(list(web(0))).To(Equal([]string{""}), "nothing was ever stored in the namespace")
	w.Expect(filepath.Join(strings.TrimPrefix(w.store.String(), "file://"), "d")).NotTo(BeADirectory(), "and looking makes nothing")
	for i := range 3 {
		w.saved("team-a", "web", map[string]string{"a": strings.Repeat("x", i+1), "d/b": "yy"})
	}
	w.Expect(list(web(0))).To(Equal([]string{"1.3 2/2/5 true, 1.2 2/2/4 true, 1.1 2/2/3 true"}))
	w.Expect(list(web(2))).To(Equal([]string{"1.3 2/2/5 true, 1.2 2/2/4 true", "1.1 2/2/3 true"}))
	w.Expect(list(&daemonv1.ListBackupsRequest{Namespace: "team-b", Name: "web"})).To(Equal([]string{""}), "of another namespace")

	w.damage("team-a", "web", "1.2")
	w.Expect(list(web(0))).To(Equal([]string{"1.3 2/2/5 true, 1.2 damaged, 1.1 2/2/3 true"}))
	w.Expect(outcome(drained(w.local().Export, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web", Backup: "1.2"})(t.Context()))).
		To(HavePrefix("DataLoss: backup 1.2 of workspace team-a/web cannot be read: "))
}

// damage breaks the record of a backup.
func (w *world) damage(namespace, workspace, name string) {
	w.t.Helper()
	n, err := history.ParseName(name)
	w.Expect(err).NotTo(HaveOccurred())
	objects, err := w.store.List(context.Background(), "d/"+namespace+"/w/"+workspace+"/", "", 100)
	w.Expect(err).NotTo(HaveOccurred())
	for _, o := range objects {
		data, err := w.store.Get(context.Background(), o.Key, 1<<20)
		w.Expect(err).NotTo(HaveOccurred())
		if bytes.Contains(data, fmt.Appendf(nil, `"name":%q`, n)) {
			file := filepath.Join(strings.TrimPrefix(w.store.String(), "file://"), o.Key)
			w.Expect(os.WriteFile(file, bytes.ReplaceAll(data, []byte("web"), []byte("wen")), 0o600)).To(Succeed())
			return
		}
	}
	w.t.Fatalf("there is no backup %s", name)
}

func TestListFiles(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	first := w.saved("team-a", "web", map[string]string{"a": "1", "d/b": "22", "d/e/c": "333"})
	w.saved("team-a", "web", map[string]string{"a": "4444", "d/\xff": "5"})
	w.pin("kept", first)
	list := func(r *daemonv1.ListFilesRequest) string {
		r.Namespace, r.Name = "team-a", "web"
		stream, err := w.local().ListFiles(t.Context(), r)
		w.Expect(err).NotTo(HaveOccurred())
		var words []string
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return strings.Join(words, " ")
			}
			if err != nil {
				return outcome(err)
			}
			if m.GetBackup() != nil {
				words = append(words, m.GetBackup().GetName()+":")
			}
			for _, f := range m.GetFiles() {
				word := fmt.Sprintf("%q", f.GetPath())
				if f.GetType() == daemonv1.FileType_FILE_TYPE_REGULAR {
					word += fmt.Sprintf("=%d", f.GetSize())
				}
				words = append(words, word)
			}
		}
	}
	w.Expect(list(&daemonv1.ListFilesRequest{})).To(Equal(`1.2: "" "a"=4 "d"`))
	w.Expect(list(&daemonv1.ListFilesRequest{Recursive: true})).To(Equal(`1.2: "" "a"=4 "d" "d/\xff"=1`))
	w.Expect(list(&daemonv1.ListFilesRequest{Backup: "1.1", Recursive: true})).To(Equal(`1.1: "" "a"=1 "d" "d/b"=2 "d/e" "d/e/c"=3`))
	w.Expect(list(&daemonv1.ListFilesRequest{SnapshotId: "kept", Path: []byte("/d/")})).To(Equal(`1.1: "d" "d/b"=2 "d/e"`))
	w.Expect(list(&daemonv1.ListFilesRequest{Path: []byte("d/\xff")})).To(Equal(`1.2: "d/\xff"=1`))
	w.Expect(list(&daemonv1.ListFilesRequest{Path: []byte("d/b")})).To(Equal(`NotFound: backup 1.2 of workspace team-a/web has no "d/b"`))
	w.Expect(list(&daemonv1.ListFilesRequest{Backup: "1.7"})).To(Equal("NotFound: the store has no backup 1.7 of workspace team-a/web: list its backups to see what there is"))
	w.Expect(list(&daemonv1.ListFilesRequest{SnapshotId: "none"})).To(Equal("NotFound: the store has no snapshot none of workspace team-a/web: list its backups to see what there is"))
}

func (w *world) pin(id string, c history.Commit) {
	w.t.Helper()
	domain, err := history.OpenDomain(context.Background(), w.store, c.Domain, cluster, false)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(domain.Pin(context.Background(), id, c, history.Pin{Kind: history.PinSnapshot})).To(Succeed())
}

// Long lists come in several messages.
func TestLongListsAreCut(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	files := map[string]string{}
	for i := range 3000 {
		files[fmt.Sprintf("%04d-%s", i, strings.Repeat("x", 150))] = ""
	}
	w.saved("team-a", "web", files)
	stream, err := w.local().ListFiles(t.Context(), &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	messages, seen := 0, 0
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		w.Expect(err).NotTo(HaveOccurred())
		messages, seen = messages+1, seen+len(m.GetFiles())
	}
	w.Expect(seen).To(Equal(3001))
	w.Expect(messages).To(BeNumerically("~", 5, 1))
}

func TestFilesOfEveryKind(t *testing.T) {
	g := NewWithT(t)
	row := archive.Row{
		Path: "l", Kind: format.KindSymlink,
		Meta: format.Meta{Mode: 0o4755, UID: 1, GID: 2, Sec: 1 << 60, Nsec: 5, Extra: &format.Extra{Target: "\xfe"}},
	}
	f := fileOf(row)
	g.Expect(f.GetType()).To(Equal(daemonv1.FileType_FILE_TYPE_SYMLINK))
	g.Expect([]any{f.GetMode(), f.GetUid(), f.GetGid(), string(f.GetTarget())}).To(Equal([]any{uint32(0o4755), uint32(1), uint32(2), "\xfe"}))
	g.Expect(f.GetModifyTime().CheckValid()).To(Succeed(), "whatever time somebody has given his file")
	row.Sec = -1 << 60
	g.Expect(fileOf(row).GetModifyTime().CheckValid()).To(Succeed())
	for kind, want := range map[format.Kind]daemonv1.FileType{
		format.KindFile: daemonv1.FileType_FILE_TYPE_REGULAR, format.KindFIFO: daemonv1.FileType_FILE_TYPE_FIFO,
		format.KindWhiteout: daemonv1.FileType_FILE_TYPE_WHITEOUT, 77: daemonv1.FileType_FILE_TYPE_UNSPECIFIED,
	} {
		g.Expect(typeOf(archive.Row{Kind: kind})).To(Equal(want))
	}
	g.Expect(fileOf(archive.Row{Kind: format.KindFile, Flags: format.FlagUnreadable}).GetUnreadable()).To(BeTrue())
}

// rest is what is still to come of an export.
func rest(w *world, stream grpc.ServerStreamingClient[daemonv1.ExportResponse]) *bytes.Buffer {
	w.t.Helper()
	var all bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return &all
		}
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(len(m.GetData())).To(BeNumerically("<=", fullMessage))
		all.Write(m.GetData())
	}
}

func TestExportIsATar(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web")).start()
	large := noise()[:1<<20]
	w.saved("team-a", "web", map[string]string{"a": "old"})
	w.saved("team-a", "web", map[string]string{"a": large, "d/b": "text"})
	stream, err := w.local().Export(t.Context(), &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	m, err := stream.Recv()
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(m.GetBackup().GetName()).To(Equal("1.2"))
	w.Expect(m.GetData()).To(BeEmpty())
	all := rest(w, stream)
	got := map[string]string{}
	for r := tar.NewReader(all); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		w.Expect(err).NotTo(HaveOccurred())
		text, err := io.ReadAll(r)
		w.Expect(err).NotTo(HaveOccurred())
		got[h.Name] = string(text)
	}
	w.Expect(got).To(HaveKeyWithValue("a", large))
	w.Expect(got).To(HaveKeyWithValue("d/b", "text"))
}

// Exports and lists of files share their places; whoever finds none for a while is told so.
func TestExportsHavePlaces(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	w.server.pauses.place = 50 * time.Millisecond
	w.saved("team-a", "web", map[string]string{"file": noise()})
	c := w.server.Configured()
	c.Exports = 1
	w.server.Configure(c)
	w.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := w.local().Export(ctx, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(second(stream.Recv())).To(Succeed())
	list := func() string {
		return outcome(drained(w.local().ListFiles, &daemonv1.ListFilesRequest{Namespace: "team-a", Name: "web"})(t.Context()))
	}
	w.Expect(list()).To(Equal("ResourceExhausted: as many exports and lists of files run as service.exports allows: try again later"))
	c.Exports = 2
	w.server.Configure(c)
	w.Expect(list()).To(Equal("OK"))
	cancel()
	w.Eventually(w.running).Should(BeZero())
}

// An export that has begun ends well although its workspace goes meanwhile: it is of a backup, which stays. Nobody begins another one.
func TestAnExportOutlivesItsWorkspace(t *testing.T) {
	noLeaks(t)
	web := workspace("team-a", "web")
	w := newWorld(t, web.DeepCopy()).start()
	text := noise()
	w.saved("team-a", "web", map[string]string{"file": text})
	stream, err := w.local().Export(t.Context(), &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(second(stream.Recv())).To(Succeed())
	w.remove(web)
	all := rest(w, stream)
	r := tar.NewReader(all)
	for name := ""; name != "file"; {
		h, err := r.Next()
		w.Expect(err).NotTo(HaveOccurred())
		name = h.Name
	}
	got, err := io.ReadAll(r)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(string(got) == text).To(BeTrue())
	w.Expect(outcome(drained(w.local().Export, &daemonv1.ExportRequest{Namespace: "team-a", Name: "web"})(t.Context()))).
		To(HavePrefix("NotFound: node node-a has no workspace team-a/web"))
}

func TestUsage(t *testing.T) {
	noLeaks(t)
	at := time.Unix(1_700_000_000, 0)
	w := newWorld(t, workspace("team-a", "full", full), workspace("team-a", "open", func(ws *v1.Workspace) {
		ws.Status.Volume = &v1.VolumeStatus{Driver: "directory"}
	}), workspace("team-a", "new")).start()
	for _, name := range []string{"full", "open"} {
		w.engine.entries["team-a-"+name] = state.Entry{
			Usage: state.Usage{Bytes: 100, Inodes: 7, At: at, Escaped: "a"}, Backup: state.Backup{CheckedAt: at.Add(time.Second)},
		}
	}
	usage := func(name string) string {
		u, err := w.local().Usage(t.Context(), &daemonv1.UsageRequest{Namespace: "team-a", Name: name})
		if err != nil {
			return outcome(err)
		}
		return fmt.Sprintf("%d of %d bytes, %d of %d inodes, limited %t, escaped %q, %d backups, at %d, unsaved since %d", u.GetUsedBytes(), u.GetSizeBytes(),
			u.GetUsedInodes(), u.GetSizeInodes(), u.GetLimited(), u.GetEscaped(), u.GetBackups(), u.GetMeasureTime().GetSeconds(), u.GetUnsavedSince().GetSeconds())
	}
	w.Expect(usage("full")).To(Equal(`200 of 2147483648 bytes, 7 of 1000 inodes, limited true, escaped "a", 12 backups, at 1700000000, unsaved since 1700000001`), "measured")
	w.Expect(usage("open")).To(Equal(`100 of 0 bytes, 7 of 0 inodes, limited false, escaped "a", 0 backups, at 1700000000, unsaved since 1700000001`))
	w.Expect(usage("new")).To(Equal(`0 of 0 bytes, 0 of 0 inodes, limited false, escaped "", 0 backups, at 0, unsaved since 0`))
	w.engine.measured = errBroken
	w.Expect(usage("full")).To(Equal("Unavailable: broken"))
}

package content_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox/sandboxtest"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

const (
	urlVariable  = "WS_DAEMON_TEST_URL"
	heldVariable = "WS_DAEMON_TEST_HELD"
)

// origins are what workspaces come from: a file, a tar, a repository, and a snapshot with the repository in it. While they are held,
// they give half of it, take that down, and say no more.
type origins struct {
	*httptest.Server
	root string
	work string
	held atomic.Bool
	// half tells that somebody has got half of it, asked counts requests.
	half  atomic.Bool
	asked atomic.Int64
}

var wholeFile = strings.Repeat("0123456789abcdef", 1<<16)

func newOrigins(f *fixture) *origins {
	f.t.Helper()
	o := &origins{root: f.t.TempDir(), work: f.t.TempDir()}
	o.Server = httptest.NewServer(o)
	f.t.Cleanup(o.Close)
	for _, args := range [][]string{{"init", "--quiet", "--initial-branch=main"}, {"add", "."}, {"commit", "--quiet", "--message", "m"}} {
		f.Expect(os.WriteFile(filepath.Join(o.work, "README"), []byte("one"), 0o644)).To(Succeed())
		o.git(f, o.work, args...)
	}
	o.git(f, o.root, "clone", "--quiet", "--bare", o.work, "r.git")
	return o
}

func (o *origins) git(f *fixture, dir string, args ...string) {
	f.t.Helper()
	cmd := exec.CommandContext(f.ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
	}
	out, err := cmd.CombinedOutput()
	f.Expect(err).NotTo(HaveOccurred(), "git %v: %s", args, out)
}

func (o *origins) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.asked.Add(1)
	switch r.URL.Path {
	case "/file":
		o.send(w, r, wholeFile)
	case "/tar":
		var b bytes.Buffer
		a := tar.NewWriter(&b)
		for _, name := range []string{"a", "b"} {
			_ = a.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(wholeFile))})
			_, _ = io.WriteString(a, wholeFile)
		}
		_ = a.Close()
		o.send(w, r, b.String())
	default:
		o.serveGit(w, r)
	}
}

func (o *origins) send(w http.ResponseWriter, r *http.Request, text string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text[:len(text)/2])
	_ = http.NewResponseController(w).Flush()
	if o.hold(r) {
		return
	}
	_, _ = io.WriteString(w, text[len(text)/2:])
}

// hold waits for the end of the client if it is time to.
func (o *origins) hold(r *http.Request) bool {
	if !o.held.Load() {
		return false
	}
	o.half.Store(true)
	<-r.Context().Done()
	return true
}

// serveGit tells what there is, and then gives nothing of it, if it is held.
func (o *origins) serveGit(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.Contains(body, []byte("command=fetch")) && o.hold(r) {
		return
	}
	(&cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + o.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}).ServeHTTP(w, r)
}

// kinds are initializers, with what is there when they are done.
func kinds(url string) map[string]content.Initializer {
	git := content.Initializer{Git: &initializer.GitSpec{URL: url + "/r.git", CheckoutLocation: "web"}}
	file := content.Initializer{Download: &initializer.DownloadSpec{URL: url + "/file", Path: "file"}}
	snapshot := named("snap")
	return map[string]content.Initializer{
		"download":         file,
		"archive":          {Download: &initializer.DownloadSpec{URL: url + "/tar", Unpack: true}},
		"git":              git,
		"snapshot":         {SnapshotID: snapshot},
		"backup":           {Backup: true},
		"prebuild":         {Prebuild: &content.Prebuild{SnapshotID: snapshot, Repositories: []content.Initializer{git}}},
		"prebuild, gone":   {Prebuild: &content.Prebuild{SnapshotID: named("none.1.2"), Repositories: []content.Initializer{git}}},
		"composite":        {Steps: []content.Initializer{file, git}},
		"composite, first": {Steps: []content.Initializer{{SnapshotID: snapshot}, file}},
	}
}

// whole is what each kind has made when it is done.
var whole = map[string]string{
	"download": "file", "archive": "a b", "git": "web/README", "snapshot": "built web/README", "backup": "mine", "prebuild": "built web/README",
	"prebuild, gone": "web/README", "composite": "file web/README", "composite, first": "built file web/README",
}

func request(kind, url string) content.FillRequest {
	r := fillRequest(1)
	r.Initializer = kinds(url)[kind]
	if kind == "backup" {
		r.Claim = 2
	}
	return r
}

// sandboxing gives a node a git.
func (n *node) sandboxing() {
	n.f.t.Helper()
	box, err := sandbox.New(n.f.ctx, sandbox.Options{})
	n.f.Expect(err).NotTo(HaveOccurred())
	n.Git = initializer.Git{Sandbox: box, AllowedSchemes: []string{"http"}, Deny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}}
}

// TestInitializingChild is what TestS5_AKilledInitializerBeginsAgain runs and kills; without its environment it does nothing.
func TestInitializingChild(t *testing.T) {
	n := childNode(t)
	if n == nil {
		return
	}
	f := n.f
	n.sandboxing()
	if held := os.Getenv(heldVariable); held != "" {
		n.fault = func(op, key string) error { // half of a restore
			if op == "get" && strings.Contains(key, "/p/") {
				f.Expect(os.WriteFile(held, nil, 0o600)).To(Succeed())
				<-f.ctx.Done()
			}
			return nil
		}
	}
	_, err := n.Recover(f.ctx)
	f.Expect(err).NotTo(HaveOccurred())
	f.Expect(n.tryFill(request(os.Getenv(goalVariable), os.Getenv(urlVariable)))).To(Succeed())
}

// kill -9 in the middle of any initializer, with half of it there: the next start begins in an empty directory, and nobody else writes
// to it. One that is finished is not run again.
func TestS5_AKilledInitializerBeginsAgain(t *testing.T) {
	t.Parallel()
	for kind := range kinds("") {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			o := newOrigins(f)
			f.prepare(kind, o)
			n := f.node("node-a")
			n.Area.Close()
			staged := n.Volumes["default"].Path(uid, volume.Staged)

			o.killHalfWay(f, n, kind)
			f.Expect(os.WriteFile(filepath.Join(staged, "half"), nil, 0o600)).To(Succeed())
			f.Expect(o.run(f, n, kind)).To(Succeed())
			n.open("node-a")
			f.Expect(n.tree()).To(Equal(whole[kind]))
			sealed := *n.seen().Marker.Content
			n.write("mine", "since")
			n.Area.Close()

			asked := o.asked.Load()
			f.Expect(o.run(f, n, kind)).To(Succeed())
			n.open("node-a")
			f.Expect(o.asked.Load()).To(Equal(asked), "nobody was asked again")
			f.Expect(*n.seen().Marker.Content).To(Equal(sealed))
			f.Expect(os.ReadFile(n.path("mine"))).To(Equal([]byte("since")))
		})
	}
}

// killHalfWay runs a daemon that fills the workspace, and kills it when half of what comes is there. Nothing of it goes on.
func (o *origins) killHalfWay(f *fixture, n *node, kind string) {
	f.t.Helper()
	held := filepath.Join(f.t.TempDir(), "held")
	o.held.Store(kind != "snapshot" && kind != "backup")
	defer o.held.Store(false)
	cmd := o.child(f, n, kind, held, o.held.Load())
	f.Expect(cmd.Start()).To(Succeed())
	f.Eventually(func() bool { _, err := os.Stat(held); return o.half.Load() || err == nil }, "60s", "5ms").Should(BeTrue())
	f.Expect(cmd.Process.Kill()).To(Succeed())
	f.Expect(cmd.Wait()).To(MatchError("signal: killed"))
	staged := n.Volumes["default"].Path(uid, volume.Staged)
	f.Eventually(func() []string { return sandboxtest.ProcessesIn(staged) }, "20s", "5ms").Should(BeEmpty())
}

// child is a daemon that fills the workspace. Where the origins hold what it asks for, it is not held by the store.
func (o *origins) child(f *fixture, n *node, kind, held string, byOrigin bool) *exec.Cmd {
	f.t.Helper()
	cmd := exec.CommandContext(f.ctx, os.Args[0], "-test.run=^TestInitializingChild$")
	cmd.Env = append(os.Environ(), diskVariable+"="+n.disk, storeVariable+"="+f.at(""), goalVariable+"="+kind, urlVariable+"="+o.URL)
	if !byOrigin {
		cmd.Env = append(cmd.Env, heldVariable+"="+held)
	}
	return cmd
}

func (o *origins) run(f *fixture, n *node, kind string) error {
	f.t.Helper()
	out, err := o.child(f, n, kind, "", true).CombinedOutput()
	if err != nil {
		err = errors.Join(err, errors.New(string(out)))
	}
	return err
}

// prepare makes the backup, or the snapshot with a repository in it, that a kind begins with.
func (f *fixture) prepare(kind string, o *origins) {
	f.t.Helper()
	z := f.node("node-z")
	z.sandboxing()
	if kind == "backup" {
		z.fill(1)
		z.write("mine", "one")
		z.release(1)
		return
	}
	origin := content.Subject{UID: "uid-origin", Namespace: "team", Name: "origin", Class: "default", Claim: 1}
	r := content.FillRequest{Subject: origin, Owner: 1000, Group: 1000, InUse: idle, Initializer: kinds(o.URL)["git"]}
	f.Expect(z.tryFill(r)).To(Succeed())
	f.Expect(os.WriteFile(filepath.Join(z.Volumes["default"].Path(origin.UID, volume.Published), "built"), nil, 0o644)).To(Succeed())
	save := saveRequest(1)
	save.Subject = origin
	_, err := z.Snapshot(f.ctx, save, "snap", true)
	f.Expect(err).NotTo(HaveOccurred())
	o.git(f, o.work, "commit", "--quiet", "--allow-empty", "--message", "since") // that there is something to fetch
	o.git(f, o.work, "push", "--quiet", filepath.Join(o.root, "r.git"), "main")
}

// tree lists the files that users see, without those of git.
func (n *node) tree() string {
	n.f.t.Helper()
	var found []string
	top := n.path("")
	n.f.Expect(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		rel, err := filepath.Rel(top, path)
		found = append(found, rel)
		return err
	})).To(Succeed())
	return strings.Join(found, " ")
}

package controllers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// newFiles serves hello.txt and hello.tar.gz, in which it lies.
func newFiles(t *testing.T) *httptest.Server {
	t.Helper()
	g := NewWithT(t)
	var packed bytes.Buffer
	c := gzip.NewWriter(&packed)
	a := tar.NewWriter(c)
	g.Expect(a.WriteHeader(&tar.Header{Name: "greetings/hello.txt", Typeflag: tar.TypeReg, Mode: 0o644, Size: 6})).To(Succeed())
	_, err := a.Write([]byte("hello\n"))
	g.Expect(errors.Join(err, a.Close(), c.Close())).To(Succeed())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hello.txt":
			_, _ = w.Write([]byte("hello\n"))
		case "/hello.tar.gz":
			_, _ = w.Write(packed.Bytes())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// examples reads the objects of a page, with the servers and the node of this test.
func (w *world) examples(page string, s *gitServer, files *httptest.Server) map[string][]*unstructured.Unstructured {
	w.Helper()
	text, err := os.ReadFile(page)
	w.Expect(err).NotTo(HaveOccurred())
	found := map[string][]*unstructured.Unstructured{}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		block := strings.NewReplacer("https://git.example.com", s.URL, "https://files.example.com", files.URL, "node-a", w.node).Replace(block[1])
		var objects []*unstructured.Unstructured
		for doc := range strings.SplitSeq(block, "---\n") {
			o := &unstructured.Unstructured{}
			w.Expect(yaml.UnmarshalStrict([]byte(doc), &o.Object)).To(Succeed())
			o.SetNamespace(w.namespace)
			objects = append(objects, o)
		}
		found[objects[len(objects)-1].GetName()] = objects
	}
	return found
}

// Every example of docs/initializers.md does what the page says.
func TestInitializersOfTheDocumentation(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	files := newFiles(t)
	w.start()
	former := w.create("from-a-backup")
	w.running(former)
	w.write(former, "kept", "of long ago")
	w.backup(former, "now")
	w.stopped(former)
	w.gone(former)
	origin := w.create("origin", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Git: &v1.GitInitializer{URL: s.url(), CheckoutLocation: "src/web"}}
	})
	w.running(origin)
	w.write(origin, "src/web/built", "expensive")
	w.taken(w.picture("nightly", "origin", v1.DeletionRetain), "True/Snapshotted")

	examples := w.examples("../docs/initializers.md", s, files)
	tests := map[string]struct {
		source v1.ContentSource
		files  map[string]string
		steps  []v1.ContentSource
	}{
		"from-nothing":       {v1.SourceEmpty, nil, []v1.ContentSource{v1.SourceEmpty}},
		"from-git":           {v1.SourceGit, map[string]string{"src/web/README": "other"}, []v1.ContentSource{v1.SourceGit}},
		"from-a-part-of-git": {v1.SourceGit, map[string]string{"README": "main"}, []v1.ContentSource{v1.SourceGit}},
		"from-private-git":   {v1.SourceGit, map[string]string{"README": "main"}, []v1.ContentSource{v1.SourceGit}},
		"from-a-file":        {v1.SourceDownload, map[string]string{"docs/hello.txt": "hello\n"}, []v1.ContentSource{v1.SourceDownload}},
		"from-an-archive":    {v1.SourceDownload, map[string]string{"greetings/hello.txt": "hello\n"}, []v1.ContentSource{v1.SourceDownload}},
		"from-a-snapshot":    {v1.SourceSnapshot, map[string]string{"src/web/built": "expensive"}, []v1.ContentSource{v1.SourceSnapshot}},
		"from-a-prebuild": {v1.SourcePrebuild, map[string]string{"src/web/built": "expensive", "src/web/README": "main"},
			[]v1.ContentSource{v1.SourcePrebuild, v1.SourceGit}},
		"from-a-backup": {v1.SourceBackup, map[string]string{"kept": "of long ago"}, nil},
		"from-several": {v1.SourceComposite, map[string]string{"web/README": "main", "other/README": "other", "docs/greetings/hello.txt": "hello\n"},
			[]v1.ContentSource{v1.SourceGit, v1.SourceGit, v1.SourceDownload}},
	}
	w.Expect(examples).To(HaveLen(len(tests)), "every example is run")
	for name, tt := range tests {
		w.Expect(examples).To(HaveKey(name))
		for _, o := range examples[name] {
			w.Expect(w.Create(w.Context(), o)).To(Succeed(), name)
		}
		ws := &v1.Workspace{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
		w.running(ws)
		got := w.now(ws)
		w.Expect(got.Status.Content.Source).To(Equal(tt.source), name)
		for file, text := range tt.files {
			w.Expect(w.read(got, file)).To(Equal(text), name)
		}
		var steps []v1.ContentSource
		for _, step := range got.Status.Content.Steps {
			steps = append(steps, step.Source)
		}
		w.Expect(steps).To(Equal(tt.steps), name)
	}
}

// notes are what the events of a reason tell about an object, in the order of their actions.
func (w *world) notes(about, reason string) []string {
	var list eventsv1.EventList
	w.Expect(w.List(w.Context(), &list, client.InNamespace(w.namespace))).To(Succeed())
	slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return strings.Compare(a.Action, b.Action) })
	var notes []string
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Name == about && e.Reason == reason {
			notes = append(notes, e.Action+": "+e.Note)
		}
	}
	return notes
}

// Every step is summed up in an event of its own, also two of one kind, and one whose URL is longer than an event may be.
func TestEveryStepIsToldInAnEvent(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	files := newFiles(t)
	w.start()
	long := files.URL + "/hello.txt?" + strings.Repeat("x", 1500)
	ws := w.create("web", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Composite: []v1.InitializerStep{
			{Git: &v1.GitInitializer{URL: s.url(), CheckoutLocation: "web"}},
			{Git: &v1.GitInitializer{URL: s.url(), CheckoutLocation: "other", Target: &v1.GitTarget{Branch: "other"}}},
			{Download: &v1.DownloadInitializer{URL: files.URL + "/hello.tar.gz", Path: "docs", Unpack: true}},
			{Download: &v1.DownloadInitializer{URL: long, Path: "long"}},
		}}
	})
	w.running(ws)
	url := regexp.QuoteMeta(s.url())
	const took = ` in [0-9.]+m?s`
	w.Eventually(func() []string { return w.notes("web", v1.EventInitialized) }).Should(HaveExactElements(
		Equal("Initialize: new content is ready (Composite): 4 files, 21 bytes"),
		MatchRegexp("^InitializeStep1: step 1 of 4, Git "+url+": 1 files, 4 bytes"+took+", branch main at [0-9a-f]{12}$"),
		MatchRegexp("^InitializeStep2: step 2 of 4, Git "+url+": 1 files, 5 bytes"+took+", branch other at [0-9a-f]{12}$"),
		MatchRegexp("^InitializeStep3: step 3 of 4, Download "+regexp.QuoteMeta(files.URL)+"/hello.tar.gz: 1 files, 6 bytes"+took+"$"),
		Equal("InitializeStep4: "+("step 4 of 4, Download " + long)[:1024]),
	))
}

// A prebuild that is gone is no reason not to start.
func TestPrebuildWithoutASnapshotIsCloned(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	w.start()
	for name, snapshot := range map[string]v1.SnapshotInitializer{"no-object": {Name: "none"}, "no-content": {ID: "none.1.2"}} {
		ws := w.create(name, func(ws *v1.Workspace) {
			ws.Spec.Initializer = v1.Initializer{Prebuild: &v1.PrebuildInitializer{Snapshot: snapshot, Git: []v1.GitInitializer{{URL: s.url()}}}}
		})
		w.running(ws)
		w.Expect(w.read(ws, "README")).To(Equal("main"))
		steps := w.now(ws).Status.Content.Steps
		w.Expect(steps[0].Message).To(ContainSubstring("its repositories were cloned instead: there is no "))
		w.Expect(steps[1].From).To(Equal(s.url()))
	}
}

func TestDownloadThatFailsIsInitializeFailed(t *testing.T) {
	w := newWorld(t)
	files := newFiles(t)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Composite: []v1.InitializerStep{
			{Download: &v1.DownloadInitializer{URL: files.URL + "/hello.txt", Path: "a"}},
			{Download: &v1.DownloadInitializer{URL: files.URL + "/none", Path: "b"}},
		}}
	})
	w.Expect(w.becomes(ws, "Stalled", "True/InitializeFailed")).To(ContainSubstring("step 2 of 2 of the initializer: download " + files.URL + "/none: the server answers 404 Not Found"))
	w.patch(ws, "spec: {initializer: {composite: [{download: {url: '"+files.URL+"/hello.txt', path: c}}]}}")
	w.running(ws)
	w.Expect(w.read(ws, "c")).To(Equal("hello\n"))
	_, err := os.Stat(w.path(ws, "a"))
	w.Expect(err).To(MatchError(os.ErrNotExist), "the second attempt began in an empty directory")
}

// How far an initializer is, is seen while it is at work.
func TestProgressOfAnInitializerIsSeen(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	files := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = rw.Write(data[:5<<20])
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-release:
			_, _ = rw.Write(data[5<<20:])
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(files.Close)
	w.start()
	ws := w.create("web", func(ws *v1.Workspace) {
		ws.Spec.Initializer = v1.Initializer{Download: &v1.DownloadInitializer{URL: files.URL, Path: "large"}}
	})
	w.Eventually(func() *v1.OperationStatus { return w.now(ws).Status.Operation }).Should(HaveValue(And(
		HaveField("Type", v1.OperationInitialize), HaveField("BytesDone", And(BeNumerically(">=", 4<<20), BeNumerically("<=", 5<<20))),
	)))
	close(release)
	w.running(ws)
	w.Expect(w.now(ws).Status.Operation).To(BeNil())
	w.Expect(w.now(ws).Status.Content.Steps).To(HaveExactElements(And(HaveField("Files", BeEquivalentTo(1)), HaveField("Bytes", BeEquivalentTo(len(data))))))
}

// newWithUntracked has a repository with a "new file", which a backup has seen.
func newWithUntracked(t *testing.T) (*world, *v1.Workspace) {
	t.Helper()
	w := newWorld(t)
	s := newGitServer(t, w)
	w.start()
	ws := w.create("web", fromGit(s, "", ""))
	w.running(ws)
	w.write(ws, "new file", "x")
	w.backup(ws, "one")
	w.Eventually(func() []string { return w.now(ws).Status.Git.UntrackedFiles }).Should(Equal([]string{"new file"}))
	return w, ws
}

// What is not committed is seen with each backup, the final one included.
func TestGitStatusIsReportedWithBackups(t *testing.T) {
	w, ws := newWithUntracked(t)
	w.write(ws, "README", "changed")
	w.stopped(ws)
	git := w.now(ws).Status.Git
	w.Expect(git.UncommittedFiles).To(Equal([]string{"README"}))
	w.Expect([]int64{git.TotalUncommittedFiles, git.TotalUntrackedFiles, git.TotalUnpushedCommits}).To(Equal([]int64{1, 1, 0}))
	w.Expect(git.Branch).To(Equal("main"))
}

// A repository that cannot be looked at keeps no backup from being made, the final one included, and what was seen last stays.
func TestGitStatusThatFailsIsNoMatterOfBackups(t *testing.T) {
	w, ws := newWithUntracked(t)
	w.write(ws, ".git/index", "nonsense")
	w.write(ws, "another", "x")
	w.backup(ws, "two")
	w.stopped(ws)
	w.becomes(ws, "FinalBackup", "True/Committed")
	w.Expect(w.now(ws).Status.Git.UntrackedFiles).To(Equal([]string{"new file"}))
}

// Ten clones whose server says nothing take the places of clones, and no more: ten restores meanwhile come to their end, a stop does not
// wait, nor does the stop of one of themselves.
func TestNobodyIsStuckBehindClones(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	w.limits = map[jobs.Class]int{ClassInitialize: 4, ClassRestore: 4}
	w.start()
	used := w.create("used")
	w.running(used)
	w.write(used, "kept", "used")
	var restores, clones []*v1.Workspace
	for i := range 10 {
		restores = append(restores, w.create(fmt.Sprintf("back-%d", i)))
	}
	for _, ws := range restores {
		w.running(ws)
		w.write(ws, "kept", ws.Name)
		w.patch(ws, "spec: {state: Stopped}")
	}
	for _, ws := range restores {
		w.becomes(ws, "Ready", "False/Stopped")
	}
	release := s.hold(t)
	for i := range 10 {
		clones = append(clones, w.create(fmt.Sprintf("clone-%d", i), fromGit(s, "", "")))
	}
	for _, ws := range clones {
		w.Eventually(func() string { return w.now(ws).Status.NodeName }).Should(Equal(w.node))
	}
	w.Eventually(s.requests).Should(Equal(4))

	for _, ws := range restores {
		w.patch(ws, "spec: {state: Running}")
	}
	for _, ws := range restores {
		w.running(ws)
		w.Expect(w.read(ws, "kept")).To(Equal(ws.Name))
	}
	w.patch(used, "spec: {state: Stopped}")
	w.becomes(used, "FinalBackup", "True/Committed")
	w.becomes(used, "Ready", "False/Stopped")
	w.Expect(s.requests()).To(Equal(4), "a clone for each place, all the time")
	for _, ws := range clones[:3] {
		w.patch(ws, "spec: {state: Stopped}")
		w.becomes(ws, "Ready", "False/Stopped")
	}
	w.Expect(s.requests()).To(BeNumerically("<=", 7), "the place of who was stopped goes to the next one")
	for _, ws := range clones {
		summary, _ := condition(w.now(ws).Status.Conditions, v1.ConditionContentReady)
		w.Expect(summary).NotTo(HavePrefix("True"), "no clone has come to an end meanwhile")
	}
	release()
	for _, ws := range clones[3:] {
		w.running(ws)
		w.Expect(w.read(ws, "README")).To(Equal("main"))
	}
}

func TestS9_TheNodeSaysWhatItsSandboxLacks(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.Eventually(func(g Gomega) {
		var node v1.WorkspaceNode
		g.Expect(w.Get(w.Context(), types.NamespacedName{Name: w.node}, &node)).To(Succeed())
		summary, message := condition(node.Status.Conditions, v1.ConditionSandboxed)
		g.Expect(summary).To(Equal("True/Protected"), message)
	}, time.Minute).Should(Succeed())
	lacking := sandboxed(nil)
	w.Expect([]string{lacking.reason, lacking.message}).To(Equal([]string{"ProtectionsMissing", "hostile content is read without there is no sandbox"}))
}

package controllers

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// gitServer serves one repository with the branches main and other.
type gitServer struct {
	*httptest.Server
	root string

	mu       sync.Mutex
	password string        // "" lets everybody in
	gate     chan struct{} // requests wait until it is closed; nil is open
	asked    int
}

func newGitServer(t *testing.T, w *world) *gitServer {
	t.Helper()
	s := &gitServer{root: t.TempDir()}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	work := t.TempDir()
	git := func(dir string, args ...string) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		}
		out, err := cmd.CombinedOutput()
		w.Expect(err).NotTo(HaveOccurred(), "git %v: %s", args, out)
	}
	git(work, "init", "--quiet", "--initial-branch=main")
	for _, branch := range []string{"main", "other"} {
		git(work, "checkout", "--quiet", "-B", branch)
		w.Expect(os.WriteFile(filepath.Join(work, "README"), []byte(branch), 0o600)).To(Succeed())
		git(work, "add", ".")
		git(work, "commit", "--quiet", "--message", branch)
	}
	git(work, "checkout", "--quiet", "main")
	git(s.root, "clone", "--quiet", "--bare", work, "web.git")
	return s
}

func (s *gitServer) url() string { return s.URL + "/web.git" }

func (s *gitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	password, gate := s.password, s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if _, got, _ := r.BasicAuth(); password != "" && got != password {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you, "+got+"?", http.StatusUnauthorized) // a server that repeats what it was sent
		return
	}
	(&cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}).ServeHTTP(w, r)
}

// lock lets in only who knows the password.
func (s *gitServer) lock(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = password
}

func (s *gitServer) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// hold makes requests wait until the returned function is called.
func (s *gitServer) hold(t *testing.T) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	return release
}

// fromGit makes a workspace of the repository.
func fromGit(s *gitServer, branch, secret string) func(*v1.Workspace) {
	return func(ws *v1.Workspace) {
		git := &v1.GitInitializer{URL: s.url()}
		if branch != "" {
			git.Target = &v1.GitTarget{Branch: branch}
		}
		if secret != "" {
			git.AuthSecretRef = &v1.SecretReference{Name: secret}
		}
		ws.Spec.Initializer = v1.Initializer{Git: git}
	}
}

func TestWorkspaceFromGit(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	w.start()
	ws := w.create("web", fromGit(s, "other", ""))
	w.running(ws)
	w.Expect(w.read(ws, "README")).To(Equal("other"))
	got := w.now(ws).Status
	w.Expect(got.Content.Source).To(Equal(v1.SourceGit))
	w.Expect(got.Git.Branch).To(Equal("other"))
	w.Expect(got.Git.Commit).To(MatchRegexp("^[0-9a-f]{40}$"))
	w.Expect(got.Operation).To(BeNil())
}

func TestWrongBranchIsCloneFailedUntilTheSpecIsMended(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	w.start()
	ws := w.create("web", fromGit(s, "missing", ""))
	says := w.becomes(ws, "ContentReady", "False/CloneFailed")
	w.Expect(says).To(ContainSubstring("missing"))
	w.Expect(w.becomes(ws, "Stalled", "True/CloneFailed")).To(Equal(says))
	w.becomes(ws, "Ready", "False/CloneFailed")
	w.Expect(w.now(ws).Status.Operation.Attempts).To(BeNumerically(">=", 1))
	w.Expect(w.now(ws).Status.Operation.LastFailure).To(Equal(says))

	w.patch(ws, "spec: {initializer: {git: {target: {branch: main}}}}")
	w.running(ws)
	w.becomes(ws, "Stalled", "absent")
	w.Expect(w.read(ws, "README")).To(Equal("main"))
	w.Expect(w.now(ws).Status.Operation).To(BeNil())
}

func TestMissingRepositoryIsCloneFailed(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	w.start()
	ws := w.create("web", fromGit(s, "", ""), func(ws *v1.Workspace) { ws.Spec.Initializer.Git.URL = s.URL + "/none.git" })
	w.becomes(ws, "ContentReady", "False/CloneFailed")
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.becomes(ws, "FinalBackup", "False/NothingToBackUp")
	w.Eventually(w.volumes).Should(BeEmpty())
	w.gone(ws)
}

// The password of all tests of secrets: nothing but the git server may ever see it.
const password = "correct-horse-battery-staple"

func (w *world) secret(name string, data map[string]string) *corev1.Secret {
	w.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}
	w.Expect(w.Create(w.Context(), secret)).To(Succeed())
	return secret
}

func TestMissingSecretIsUnauthorizedUntilItAppears(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	s.lock(password)
	w.start()
	ws := w.create("web", fromGit(s, "", "web-git"))
	says := "there is no Secret " + w.namespace + "/web-git: create it with the keys username and password, or token, or bearerToken"
	w.Expect(w.becomes(ws, "ContentReady", "False/Unauthorized")).To(Equal(says))
	w.Expect(w.becomes(ws, "Stalled", "True/Unauthorized")).To(Equal(says))
	w.Expect(w.becomes(ws, "Ready", "False/Unauthorized")).To(Equal(says))
	w.Expect(s.requests()).To(BeZero(), "nobody was asked without credentials")

	w.secret("web-git", map[string]string{"username": "me", "password": password})
	w.patch(ws, "spec: {backup: {trigger: look-again}}")
	w.running(ws)
	w.becomes(ws, "Stalled", "absent")
	w.Expect(w.read(ws, "README")).To(Equal("main"))
}

// A Secret without what its URL needs is one clear reason, before anybody is asked, and a Secret that is mended is enough.
func TestSecretWithoutTheExpectedKeyIsNamed(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	s.lock(password)
	w.start()
	lacks := func(name, url string, data map[string]string, says string) (*corev1.Secret, *v1.Workspace) {
		secret := w.secret(name, data)
		ws := w.create(name, fromGit(s, "", name), func(ws *v1.Workspace) { ws.Spec.Initializer.Git.URL = url })
		says = "Secret " + w.namespace + "/" + name + " " + says
		for _, state := range []struct{ condition, is string }{{"ContentReady", "False"}, {"Stalled", "True"}, {"Ready", "False"}} {
			w.Expect(w.becomes(ws, state.condition, state.is+"/Unauthorized")).To(Equal(says))
		}
		return secret, ws
	}
	lacks("bearer", s.url(), map[string]string{"bearerToken": ""}, "has no key that this URL can use: add the keys username and password, or token, or bearerToken")
	lacks("ssh", "ssh://git@"+s.Listener.Addr().String()+"/web.git", map[string]string{"ssh-privatekey": "k"},
		"lacks the key known_hosts: add the lines that ssh-keyscan prints, once you know that they are right")
	secret, ws := lacks("basic", s.url(), map[string]string{"username": "me"}, "lacks the key password: it has username alone")
	w.Expect(s.requests()).To(BeZero(), "nobody was asked without credentials")

	w.patch(secret, "stringData: {password: "+password+"}")
	w.patch(ws, "spec: {backup: {trigger: look-again}}")
	w.running(ws)
	w.Expect(w.read(ws, "README")).To(Equal("main"))
}

func TestS8_SecretsStayOutOfSight(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	s.lock(password)
	w.start()
	const wrong = "wrong-horse-wrong-battery"
	secret := w.secret("web-git", map[string]string{"username": "me", "password": wrong})
	ws := w.create("web", fromGit(s, "", "web-git"))
	w.becomes(ws, "ContentReady", "False/Unauthorized")
	w.becomes(ws, "Stalled", "True/Unauthorized")
	w.patch(secret, "stringData: {password: "+password+"}")
	w.patch(ws, "spec: {backup: {trigger: look-again}}")
	w.running(ws)
	w.backup(ws, "with-secrets")
	content := filepath.Dir(w.now(ws).Status.Volume.Path)

	w.Expect(logged.String()).NotTo(BeEmpty())
	for _, hidden := range []string{password, wrong} {
		for _, r := range w.traffic.all(func(*request) bool { return true }) {
			w.Expect(strings.Contains(r.sent, hidden)).To(BeFalse(), "%s %s %s: status, events or objects tell a secret", r.verb, r.resource, r.name)
		}
		w.Expect(strings.Contains(w.events(), hidden)).To(BeFalse(), "an event tells a secret")
		w.Expect(strings.Contains(logged.String(), hidden)).To(BeFalse(), "the log tells a secret")
		w.Expect(filesWith(w, content, hidden)).To(BeEmpty(), "a file of the workspace holds a secret")
		w.Expect(filesWith(w, w.area, hidden)).To(BeEmpty(), "a file of the working area holds a secret")
	}
	w.Expect(w.traffic.all(func(r *request) bool { return r.resource == "secrets" && (r.name != "web-git" || r.verb != "GET") })).
		To(BeEmpty(), "Secrets are read one at a time by name, never listed or watched")
	w.Expect(w.events()).To(ContainSubstring("Initialized"))
}

// filesWith lists the files below a directory that hold a text.
func filesWith(w *world, dir, text string) []string {
	var found []string
	w.Expect(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			found = append(found, path)
		}
		return err
	})).To(Succeed())
	return found
}

func TestObjectEditedWhileItsJobRuns(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	release := s.hold(t)
	w.start()
	ws := w.create("web", fromGit(s, "main", ""))
	w.Eventually(s.requests).Should(BeNumerically(">", 0))
	w.patch(ws, "spec: {volume: {size: 128Mi}, initializer: {git: {target: {branch: other}}}, backup: {trigger: edited}}")
	w.Eventually(func() int64 { return w.now(ws).Status.ObservedGeneration }).Should(Equal(int64(2)), "the edit is seen at once")
	release()
	w.running(ws)
	w.Expect(w.read(ws, "README")).To(Equal("main"), "what was begun is finished; an initializer fills only new workspaces")
	w.Eventually(func() string { return w.honoured(ws) }).Should(Equal("edited"))
	w.Expect(w.becomes(ws, "VolumeReady", "True/Unlimited")).To(HaveSuffix("to 128Mi"))
}

func TestStoppedWhileItIsBeingFilled(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	release := s.hold(t)
	w.start()
	ws := w.create("web", fromGit(s, "main", ""))
	w.Eventually(s.requests).Should(BeNumerically(">", 0))
	w.patch(ws, "spec: {state: Stopped}")
	w.becomes(ws, "Ready", "False/Stopped")
	w.becomes(ws, "FinalBackup", "False/NothingToBackUp")
	w.Eventually(w.volumes).Should(BeEmpty())
	release()
	w.patch(ws, "spec: {state: Running}")
	w.running(ws)
	w.Expect(w.read(ws, "README")).To(Equal("main"))
	w.Expect(w.now(ws).Status.Claim).To(Equal(int64(2)))
}

func TestDeletedWhileItIsBeingFilled(t *testing.T) {
	w := newWorld(t)
	s := newGitServer(t, w)
	s.hold(t)
	w.start()
	ws := w.create("web", fromGit(s, "main", ""))
	w.Eventually(s.requests).Should(BeNumerically(">", 0))
	w.gone(ws)
	w.Expect(w.volumes()).To(BeEmpty())
	w.Expect(w.workspaces.Keeper.Area.Journal().List()).To(BeEmpty())
}

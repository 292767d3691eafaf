package initializer_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// recorder is a server at an address that is denied. It takes down every connection.
type recorder struct {
	address string

	mu   sync.Mutex
	seen int
}

// deniedNetwork has the recorder's address.
func deniedNetwork() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")} }

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	r := &recorder{address: l.Addr().String()}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.seen++
			r.mu.Unlock()
			_ = conn.Close()
		}
	}()
	return r
}

func (r *recorder) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// Whatever leads there, nothing connects to a network that is denied.
func TestS6_NothingConnectsToWhatIsDenied(t *testing.T) {
	s := newServer(t)
	s.repo(t, "r")
	r := newRecorder(t)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, "http://"+r.address+q.URL.RequestURI(), http.StatusFound)
	}))
	t.Cleanup(away.Close)
	sub := s.super(t, "sub", "[submodule \"a\"]\n\tpath = a\n\turl = http://"+r.address+"/leaf.git\n", map[string]string{"a": s.id(t, "r", "main")})
	lfs := s.lfsRepository(t, "lfs", "[lfs]\n\turl = http://"+r.address+"/lfs\n")
	const want = "the daemon's configuration denies the address 127.0.0.2 (content.egress.deny has 127.0.0.2/32)"
	_, key := newSSHServer(t, s.root)
	for name, spec := range map[string]initializer.GitSpec{
		"git":           {URL: "http://" + r.address + "/r.git"},
		"git redirect":  {URL: away.URL + "/r.git"},
		"git submodule": {URL: sub, Submodules: true},
		"git LFS":       {URL: lfs, LFS: true},
		"git by mapped": {URL: "http://[::ffff:127.0.0.2]:" + r.address[len("127.0.0.2:"):] + "/r.git"},
		"ssh": {URL: "ssh://git@" + r.address + "/r.git", Credentials: &initializer.Credentials{
			Key: key, KnownHosts: "[127.0.0.2]:22 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			git := newGit(t)
			git.AllowedSchemes, git.Deny = []string{"http", "ssh"}, deniedNetwork()
			_, err := git.Run(t.Context(), newTarget(t), spec)
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(Or(ContainSubstring(want), ContainSubstring("denies addresses of this machine (content.egress.deny)")))))
			g.Expect(r.connections()).To(BeZero())
		})
	}
	for name, url := range map[string]string{"download": "http://" + r.address + "/f", "download redirect": away.URL + "/f"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := newDownload(t)
			d.Deny = deniedNetwork()
			_, err := d.Run(t.Context(), newTarget(t), initializer.DownloadSpec{URL: url, Path: "f"})
			g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError("download "+url+": "+want)))
			g.Expect(r.connections()).To(BeZero())
		})
	}
	t.Run("git LFS by a name of the cloud", func(t *testing.T) {
		g := NewWithT(t)
		spec := initializer.GitSpec{URL: s.lfsRepository(t, "metadata", "[lfs]\n\turl = http://169.254.169.254/lfs\n"), LFS: true}
		_, err := newGit(t).Run(t.Context(), newTarget(t), spec)
		g.Expect(err).To(And(MatchError(initializer.ErrInvalid), MatchError(ContainSubstring("denies the address 169.254.169.254"))))
	})
	t.Run("where nothing is denied, the recorder sees it", func(t *testing.T) {
		g := NewWithT(t)
		git := newGit(t)
		git.Deny = nil
		_, err := git.Run(t.Context(), newTarget(t), initializer.GitSpec{URL: away.URL + "/r.git"})
		g.Expect(err).To(HaveOccurred())
		g.Expect(r.connections()).To(BeNumerically(">", 0))
	})
}

// A server without the protocol of our days says where more of the repository is. Nobody goes there.
func TestS6_RemoteAlternatesAreNotFollowed(t *testing.T) {
	g := NewWithT(t)
	s := newServer(t)
	s.repo(t, "r")
	other := newServer(t)
	other.repo(t, "r")
	dumb := httptest.NewServer(http.FileServer(http.Dir(s.root)))
	t.Cleanup(dumb.Close)
	git(t, s.root+"/r.git", "update-server-info")
	g.Expect(os.RemoveAll(s.root + "/r.git/objects")).To(Succeed())
	write(t, s.root, "r.git/objects/info/http-alternates", other.URL+"/r.git/objects\n")
	write(t, s.root, "r.git/objects/info/alternates", other.root+"/r.git/objects\n")
	_, err := newGit(t).Run(t.Context(), newTarget(t), initializer.GitSpec{URL: dumb.URL + "/r.git"})
	g.Expect(err).To(HaveOccurred())
	g.Expect(other.authorizations()).To(BeEmpty(), "no request")
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/hack/repository"
)

// Names of the programs that FindTools knows.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubectl           = "kubectl"
	Kubelet           = "kubelet"
)

// packageOf names the main package of a program, as a tool of hack/tools/kubernetes.
func packageOf(name string) string {
	if name == Etcd {
		return "go.etcd.io/etcd/server/v3"
	}
	return "k8s.io/kubernetes/cmd/" + name
}

// FindTools gives the paths of the named programs. Each is looked for in $KUBEBUILDER_ASSETS and then in
// $XDG_CACHE_HOME/ws-daemon/tools/kubernetes-VERSION; what is in neither is built into the latter, which takes minutes
// the first time and needs the repository as working directory (or one below it). Progress goes to log.
func FindTools(ctx context.Context, log io.Writer, names ...string) (map[string]string, error) {
	found, missing := lookIn(os.Getenv("KUBEBUILDER_ASSETS"), names)
	if len(missing) == 0 {
		return found, nil
	}
	root, err := repository.Root()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w, or set KUBEBUILDER_ASSETS", strings.Join(missing, ", "), err)
	}
	b, err := newBuilder(root, log)
	if err != nil {
		return nil, err
	}
	if err := b.build(ctx, missing); err != nil {
		return nil, err
	}
	for _, name := range missing {
		found[name] = filepath.Join(b.dir, name)
	}
	return found, nil
}

// lookIn gives the programs that are in dir, and the names of those that are not.
func lookIn(dir string, names []string) (found map[string]string, missing []string) {
	found = make(map[string]string, len(names))
	for _, name := range names {
		path := filepath.Join(dir, name)
		if dir == "" || !executable(path) {
			missing = append(missing, name)
			continue
		}
		found[name] = path
	}
	return found, missing
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v[0-9]+\.[0-9]+\.[0-9]+)`)

// builder builds programs from the tools module into the cache.
type builder struct {
	module  string // directory of the tools module
	version string // of Kubernetes
	dir     string // where the programs go
	log     io.Writer
}

func newBuilder(root string, log io.Writer) (*builder, error) {
	module := filepath.Join(root, "hack", "tools", "kubernetes")
	text, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("read version of Kubernetes: %w", err)
	}
	match := kubernetesVersion.FindSubmatch(text)
	if match == nil {
		return nil, fmt.Errorf("read version of Kubernetes: %s/go.mod does not require k8s.io/kubernetes", module)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find cache directory: %w", err)
	}
	version := string(match[1])
	dir := filepath.Join(cache, "ws-daemon", "tools", "kubernetes-"+version)
	return &builder{module: module, version: version, dir: dir, log: log}, nil
}

// build makes sure that the named programs are in the cache.
func (b *builder) build(ctx context.Context, names []string) error {
	if _, missing := lookIn(b.dir, names); len(missing) == 0 {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("create tools cache: %w", err)
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Somebody else may have built them while we waited.
	_, missing := lookIn(b.dir, names)
	for _, name := range missing {
		if err := b.buildOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps two processes from building the same programs beside each other.
func (b *builder) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(b.dir+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock tools cache: %w", err)
	}
	for said := false; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("lock tools cache: %w", err)
		}
		if !said {
			b.say("waiting for another process that builds the tools (%s)", file.Name())
			said = true
		}
		if err := process.Pause(ctx, 200*time.Millisecond); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock tools cache: %w", err)
		}
	}
}

func (b *builder) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.log, format+"\n", args...)
}

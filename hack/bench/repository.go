package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

const (
	// clonerName as the first argument makes this program clone a repository as the daemon does.
	clonerName = "clone-repository"
	// repositoryFiles is the number of files that are cloned.
	repositoryFiles = 20_000
	// repositoryOwner is the user that they are cloned for.
	repositoryOwner = 33333
	// clonerTimeout ends what hangs.
	clonerTimeout = 10 * time.Minute
)

// repositories has ours and git clone the same repository, from a server in this process.
func (b *bench) repositories(ctx context.Context) (err error) {
	say("making a repository of %d files", repositoryFiles)
	root := filepath.Join(b.dir, "repositories")
	if err := makeRepository(ctx, filepath.Join(b.tree, "web"), root); err != nil {
		return err
	}
	url, stop, err := serveRepositories(ctx, root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(), os.RemoveAll(root)) }()
	b.url = url + "/r.git"
	for n := range b.rounds {
		say("round %d of %d with clones", n+1, b.rounds)
		for i := range b.tools {
			t := b.tools[(n+i)%len(b.tools)] // each round begins with another one
			if t.do[cloned] == "" {
				continue
			}
			if err := b.measure(ctx, key{tmpfs, cloned, t.name}, t, b.places(t)); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeRepository makes a bare repository of one commit, of the first files of a tree of packages. What would make git change them on their way
// is left out.
func makeRepository(ctx context.Context, tree, root string) error {
	_, _, err := execute(ctx, expand("mkdir -p {root}/work && cd {tree} && find . -name .git -prune -o -type f ! -name '.git*' -print0 | "+
		"LC_ALL=C sort -z | sed -nz 1,{files}p | tar -c --null -T - | tar -x -C {root}/work && cd {root}/work && "+
		"git init --quiet --initial-branch=main && git add --force . && "+
		"git -c user.name=bench -c user.email=bench@example.com commit --quiet --message=all && "+
		"git clone --quiet --bare . {root}/r.git && git -C {root}/r.git repack -adq && rm -rf {root}/work",
		"{tree}", tree, "{root}", root, "{files}", strconv.Itoa(repositoryFiles)), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1")
	return err
}

// serveRepositories serves what lies below a directory with git's own program.
func serveRepositories(ctx context.Context, root string) (url string, stop func() error, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: clonerTimeout, Handler: &cgi.Handler{Path: "/usr/lib/git-core/git-http-backend", Env: []string{
		"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}}}
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), server.Close, nil
}

// cloner clones a repository into a directory with the daemon's initializer, sandbox and all. It returns the exit code.
func cloner(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "a URL and a directory are needed")
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), clonerTimeout)
	defer cancel()
	box, err := sandbox.New(ctx, sandbox.Options{})
	if err == nil {
		git := initializer.Git{
			Sandbox: box, AllowedSchemes: []string{"http"}, Deny: []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}, // as by default, but for this server
		}
		_, err = git.Run(ctx, initializer.Target{Dir: args[1], UID: repositoryOwner, GID: repositoryOwner}, initializer.GitSpec{URL: args[0]})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("{}")
	return 0
}

// countClone makes sure that everything was checked out.
func countClone(dir string) error {
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			return filepath.SkipDir
		case !d.IsDir():
			n++
		}
		return nil
	})
	if err == nil && n != repositoryFiles {
		err = fmt.Errorf("cloned %d files, but the repository has %d", n, repositoryFiles)
	}
	return err
}

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"wsdaemon.dev/ws-daemon/hack/process"
)

// progressInterval is how often a running build says how far it is.
const progressInterval = 10 * time.Second

// buildOne builds one program. It appears in the cache by a rename, so an interrupted build leaves nothing that looks
// like a program.
func (b *builder) buildOne(ctx context.Context, name string) error {
	start := time.Now()
	total := b.countPackages(ctx, name)
	b.say("building %s %s from source (%d packages; once, kept in %s)", name, b.version, total, b.dir)

	out := filepath.Join(b.dir, fmt.Sprintf(".%s.%d", name, os.Getpid()))
	defer func() { _ = os.Remove(out) }()
	output := &buildOutput{}
	cmd := b.goCommand(ctx, "build", "-v", "-trimpath", "-ldflags", b.ldflags(), "-o", out, packageOf(name))
	cmd.Stderr = output
	stop := b.report(name, total, start, output)
	err := cmd.Run()
	stop()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, output.tail())
	}
	if err := os.Rename(out, filepath.Join(b.dir, name)); err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	b.say("built %s in %d s", name, int(time.Since(start).Seconds()))
	return nil
}

// goCommand runs the go tool in the tools module, whatever workspace or flags are set outside.
func (b *builder) goCommand(ctx context.Context, verb string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{verb, "-C", b.module}, args...)...)
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	return cmd
}

// ldflags put the version into the programs; without it they call themselves v0.0.0, which clients compare.
func (b *builder) ldflags() string {
	numbers := strings.SplitN(strings.TrimPrefix(b.version, "v"), ".", 3)
	flags := []string{"-s", "-w"}
	set := func(name, value string) {
		flags = append(flags, "-X k8s.io/component-base/version."+name+"="+value, "-X k8s.io/client-go/pkg/version."+name+"="+value)
	}
	set("gitVersion", b.version)
	set("gitMajor", numbers[0])
	set("gitMinor", numbers[1])
	set("gitTreeState", "clean")
	return strings.Join(flags, " ")
}

// countPackages gives the number of packages a program consists of, 0 if it cannot be told.
func (b *builder) countPackages(ctx context.Context, name string) int {
	out, err := b.goCommand(ctx, "list", "-deps", packageOf(name)).Output()
	if err != nil {
		// The build itself is about to fail with the reason.
		return 0
	}
	return bytes.Count(out, []byte("\n"))
}

// report says every few seconds what is being built, until stop is called.
func (b *builder) report(name string, total int, start time.Time, output *buildOutput) (stop func()) {
	ticker := time.NewTicker(progressInterval)
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				lines, last := output.progress()
				b.say("building %s: %d s, %d of at most %d packages compiled, now at %s",
					name, int(time.Since(start).Seconds()), lines, total, last)
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		ended.Wait()
	}
}

// buildOutput collects what `go build -v` prints: a line for each package, and errors.
type buildOutput struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *buildOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// progress gives the number of lines and the last one.
func (o *buildOutput) progress() (lines int, last string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.TrimRight(o.text.String(), "\n")
	if text == "" {
		return 0, "the first package"
	}
	return strings.Count(text, "\n") + 1, text[strings.LastIndexByte(text, '\n')+1:]
}

// tail gives the last lines, where the errors are.
func (o *buildOutput) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return process.LastLines(o.text.String(), 20)
}

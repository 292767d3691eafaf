package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox/sandboxtest"
)

func echo(_ context.Context, call *Call) (any, error) {
	var text string
	if err := call.Decode(&text); err != nil {
		return nil, err
	}
	for i := range 3 {
		call.Report(i)
	}
	return text, nil
}

func TestATaskReturnsWhatItFound(t *testing.T) {
	g := NewWithT(t)
	var got string
	var progress []string
	j := job(newDir(t), "echo", strings.Repeat("x", 1<<20), &got)
	j.Progress = func(p json.RawMessage) { progress = append(progress, string(p)) }
	g.Expect(newSandbox(t).Run(t.Context(), j)).To(Succeed())
	g.Expect(got).To(HaveLen(1 << 20))
	g.Expect(progress).To(Equal([]string{"0", "1", "2"}))
}

type kinded struct{}

func (kinded) Error() string     { return "line one\nline two\x1b[31m\xff " + strings.Repeat("y", 5000) }
func (kinded) ErrorKind() string { return "Odd" }

func failing(context.Context, *Call) (any, error) { return nil, kinded{} }

func TestATasksErrorIsShort(t *testing.T) {
	g := NewWithT(t)
	err := newSandbox(t).Run(t.Context(), job(newDir(t), "fail", nil, nil))
	task, ok := errors.AsType[*TaskError](err)
	g.Expect(ok).To(BeTrue(), "%v", err)
	g.Expect(task.Kind).To(Equal("Odd"))
	g.Expect(task.Message).To(And(HaveLen(maxText), HaveSuffix("yyy"), Not(ContainSubstring("\n"))))
}

func TestUnknownTask(t *testing.T) {
	g := NewWithT(t)
	err := newSandbox(t).Run(t.Context(), job(newDir(t), "nothing", nil, nil))
	g.Expect(err).To(MatchError(`this program has no task "nothing"`))
}

func crash(context.Context, *Call) (any, error) { panic("s3cret") }

func TestATaskThatCrashes(t *testing.T) {
	g := NewWithT(t)
	err := newSandbox(t).Run(t.Context(), job(newDir(t), "crash", nil, nil))
	g.Expect(err).To(MatchError(ErrCrashed))
	g.Expect(err).To(MatchError(Equal("the task in the sandbox crashed: task crash: exit status 2")), "what it says may hold secrets")
}

func talk(context.Context, *Call) (any, error) { return strings.Repeat("x", maxMessage), nil }

func TestATaskThatTalksTooMuch(t *testing.T) {
	g := NewWithT(t)
	var got string
	err := newSandbox(t).Run(t.Context(), job(newDir(t), "talk", nil, &got))
	g.Expect(err).To(MatchError(ErrLimit))
	g.Expect(err).To(MatchError(ContainSubstring("message is too large")))
}

func hang(ctx context.Context, call *Call) (any, error) {
	cmd := exec.CommandContext(ctx, "/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	call.Report(true)
	return nil, cmd.Wait()
}

// orphan leaves a process behind.
func orphan(ctx context.Context, _ *Call) (any, error) {
	return nil, exec.CommandContext(ctx, "/bin/sh", "-c", "sleep 1000 & exit 0").Run()
}

func TestNoProcessOutlivesItsTask(t *testing.T) {
	for name, without := range levels() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := newSandbox(t, without...)
			dir := newDir(t)
			g.Expect(s.Run(t.Context(), job(dir, "orphan", nil, nil))).To(Succeed())
			g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())

			ctx, cancel := context.WithCancel(t.Context())
			j := job(dir, "hang", nil, nil)
			seen := 0
			j.Progress = func(json.RawMessage) { seen = len(sandboxtest.ProcessesIn(dir)); cancel() }
			g.Expect(s.Run(ctx, j)).To(MatchError(context.Canceled))
			g.Expect(seen).To(Equal(2))
			g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
		})
	}
}

func TestATaskThatIsLate(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	dir := newDir(t)
	g.Expect(newSandbox(t).Run(ctx, job(dir, "hang", nil, nil))).To(MatchError(context.DeadlineExceeded))
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
}

func fork(ctx context.Context, _ *Call) (any, error) {
	for range 40 {
		if err := exec.CommandContext(ctx, "/bin/sleep", "1000").Start(); err != nil {
			return nil, err
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func eat(ctx context.Context, _ *Call) (any, error) {
	var kept [][]byte
	for range 64 {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	<-ctx.Done()
	return len(kept), ctx.Err()
}

func TestATaskThatTakesTooMuch(t *testing.T) {
	for name, tt := range map[string]struct {
		task string
		want string
	}{
		"processes": {"fork", "it had (2[1-9]|[3-9][0-9]) processes, 20 are allowed"},
		"memory":    {"eat", "it took .*256 MiB are allowed"},
	} {
		for level, without := range levels() {
			t.Run(name+", "+level, func(t *testing.T) {
				g := NewWithT(t)
				dir := newDir(t)
				j := job(dir, tt.task, nil, nil)
				j.Limits = Limits{Memory: 256 << 20, Processes: 20}
				err := newSandbox(t, without...).Run(t.Context(), j)
				g.Expect(err).To(And(MatchError(ErrLimit), MatchError(MatchRegexp(tt.want))))
				g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
			})
		}
	}
}

// The daemon's end is the end of its tasks, however it came.
func TestS5_ATaskEndsWithItsDaemon(t *testing.T) {
	for name, without := range levels() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := newDir(t)
			p, err := newSandbox(t, without...).start(t.Context(), job(dir, "hang", nil, nil))
			g.Expect(err).NotTo(HaveOccurred())
			g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "20s", "5ms").Should(HaveLen(2))
			g.Expect(p.input.Close()).To(Succeed()) // as the kernel closes it with the daemon
			g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "20s", "5ms").Should(BeEmpty())
			_ = p.end()
		})
	}
}

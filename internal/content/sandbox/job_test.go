package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

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

// share eats in several processes, none of which takes too much by itself.
func share(ctx context.Context, _ *Call) (any, error) {
	for range 6 {
		// The shell holds what it reads; nothing gives it back.
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", `x=$(head -c 60000000 /dev/zero | tr '\0' x); echo; read y; echo "$x" >/dev/null`)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		defer stdin.Close()
		if err := cmd.Start(); err != nil {
			return nil, err
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// double is a program that starts itself twice, again and again, in the background. Twelve times make as many processes as a machine
// bears if nothing stops them.
func double(ctx context.Context, _ *Call) (any, error) {
	return nil, exec.CommandContext(ctx, "/bin/sh", "-c", `f() { [ $1 = 0 ] && exec sleep 1000; f $(($1 - 1)) & f $(($1 - 1)) & wait; }; f 12`).Run()
}

// flee starts processes in groups of their own, if it may, and leaves them without a parent.
func flee(ctx context.Context, _ *Call) (any, error) {
	script := `own=; setsid true && own=setsid; i=0; while [ $i -lt 150 ]; do ($own sleep 1000 &); i=$((i + 1)); done; sleep 1000`
	return nil, exec.CommandContext(ctx, "/bin/sh", "-c", script).Run()
}

// What a limit of the kernel says of one process holds for all of a task together, whoever its user is, and also where there is no
// namespace in which the kernel counts them.
func TestATaskSharesItsLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		task string
		uid  uint32
		want string
	}{
		"memory of several":             {"share", owner, "it took .* of memory, 256 MiB are allowed"},
		"processes that double":         {"double", owner, "it had [0-9]+ processes, 100 are allowed"},
		"processes of root that double": {"double", 0, "it had [0-9]+ processes, 100 are allowed"},
		"processes that flee":           {"flee", owner, "it had [0-9]+ processes, 100 are allowed"},
	} {
		for level, without := range levels() {
			t.Run(name+", "+level, func(t *testing.T) {
				g := NewWithT(t)
				dir := newDir(t)
				g.Expect(os.Chown(dir, int(tt.uid), int(tt.uid))).To(Succeed())
				j := Job{Task: tt.task, Dir: dir, UID: tt.uid, GID: tt.uid, Limits: Limits{Memory: 256 << 20, Processes: 100}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := newSandbox(t, without...).Run(ctx, j)
				if refused := tt.task == "double" && tt.uid != 0; !refused || errors.Is(err, ErrLimit) { // the kernel may have refused more before it was counted
					g.Expect(err).To(And(MatchError(ErrLimit), MatchError(MatchRegexp(tt.want))))
				}
				g.Expect(ctx.Err()).NotTo(HaveOccurred(), "whether the kernel has refused more, or the task was ended, it did not take long")
				g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
			})
		}
	}
}

func TestATaskIsCountedAtOnceWhenTheNodeGrows(t *testing.T) {
	before := unix.Sysinfo_t{Procs: 1<<16 - 10, Freeram: 4 << 20, Unit: 4096}
	for name, tt := range map[string]struct {
		now  unix.Sysinfo_t
		want bool
	}{
		"the same":           {before, false},
		"past 16 bits":       {unix.Sysinfo_t{Procs: 100, Freeram: 4 << 20, Unit: 4096}, true},
		"some processes":     {unix.Sysinfo_t{Procs: 39, Freeram: 4 << 20, Unit: 4096}, false},
		"half of the limit":  {unix.Sysinfo_t{Procs: 40, Freeram: 4 << 20, Unit: 4096}, true},
		"many have ended":    {unix.Sysinfo_t{Procs: 1<<16 - 1000, Freeram: 4 << 20, Unit: 4096}, false},
		"some memory":        {unix.Sysinfo_t{Procs: before.Procs, Freeram: 4<<20 - 31<<10, Unit: 4096}, false},
		"half of the memory": {unix.Sysinfo_t{Procs: before.Procs, Freeram: 4<<20 - 32<<10, Unit: 4096}, true},
		"memory came back":   {unix.Sysinfo_t{Procs: before.Procs, Freeram: 8 << 20, Unit: 4096}, false},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(Limits{Memory: 256 << 20, Processes: 100}.grown(before, tt.now)).To(Equal(tt.want))
		})
	}
}

// Numbers begin again some time: a child may come before its parent, and go on doing so.
func TestTakenCountsThoseThatHaveLeft(t *testing.T) {
	proc := t.TempDir()
	for pid, stat := range map[int]string{
		900: "900 (task) S 1 900 0", 901: "901 (a) b) S 900 900 0", 5: "5 (fled) S 900 5 0", 3: "3 (its child) S 5 3 0", 7: "7 (left without) S 900 7 0",
		1: "1 (daemon) S 0 1 0", 6: "6 (other) S 1 6 0", 8: "8 (its child) S 6 6 0",
	} {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		g := NewWithT(t)
		g.Expect(os.Mkdir(dir, 0o755)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, "statm"), []byte("100 30 10 0 0 0 0"), 0o600)).To(Succeed())
	}
	for enough, want := range map[int]int{100: 5, 5: 5, 4: 5, 3: 4, 1: 2} {
		processes, memory := taken(proc, 900, Limits{Memory: 1 << 30, Processes: enough})
		NewWithT(t).Expect(processes).To(Equal(want))
		NewWithT(t).Expect(memory).To(BeEquivalentTo(want * 20 * os.Getpagesize()))
	}
	processes, _ := taken(proc, 900, Limits{Memory: 1, Processes: 100})
	NewWithT(t).Expect(processes).To(Equal(1))
}

// fill starts processes until the kernel refuses more, and tells how many that were.
func fill(ctx context.Context, _ *Call) (any, error) {
	script := `i=0; while [ $i -lt 1200 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i + 1)); echo; done`
	started, err := exec.CommandContext(ctx, "/bin/sh", "-c", script).Output()
	if err == nil {
		return nil, errors.New("the kernel started all of them")
	}
	return len(started), nil // the shell ends when it is refused a process
}

// The kernel itself starts no more, at whatever level, before anybody has counted: there is no watch in this test. What the same user has
// elsewhere on the node does not count.
func TestTheKernelLimitsProcesses(t *testing.T) {
	const allowed = 50
	user := uint32(owner + 100)
	for level, without := range levels() {
		user++ // what one level has left to the kernel counts until that has buried it
		t.Run(level, func(t *testing.T) {
			crowd(t, user, 300)
			most := allowed * threadsPerProcess
			if slices.Contains(without, UserNamespace) {
				most = allowed * threadsAmongOthers
			}
			NewWithT(t).Expect(filled(t, user, allowed, without...)).To(And(BeNumerically(">", allowed), BeNumerically("<", most)))
		})
	}
}

func TestFewest(t *testing.T) {
	for name, tt := range map[string]struct {
		needed, most, want int
		found              bool
	}{
		"none":                 {0, 1000, 0, true},
		"one":                  {1, 1000, 1, true},
		"a power of two":       {256, 1000, 256, true},
		"between two":          {300, 1000, 300, true},
		"above the last power": {900, 1000, 900, true},
		"all":                  {1000, 1000, 1000, true},
		"too many":             {1001, 1000, 0, false},
		"nothing to be had":    {1, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, found := fewest(tt.most, func(n int) bool {
				g.Expect(n).To(BeNumerically("<=", tt.most))
				return n >= tt.needed
			})
			g.Expect(found).To(Equal(tt.found))
			g.Expect(got).To(Equal(tt.want))
		})
	}
}

// crowd has a user run as many processes elsewhere, until the test ends.
func crowd(t *testing.T, user uint32, others int) {
	t.Helper()
	g := NewWithT(t)
	elsewhere := exec.CommandContext(t.Context(), "/bin/sh", "-c", fmt.Sprintf("for i in $(seq %d); do sleep 1000 & done; echo; wait", others))
	elsewhere.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user}, Setpgid: true}
	started, err := elsewhere.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(elsewhere.Start()).To(Succeed())
	t.Cleanup(func() {
		g.Expect(unix.Kill(-elsewhere.Process.Pid, unix.SIGKILL)).To(Succeed())
		g.Expect(elsewhere.Wait()).To(HaveOccurred())
	})
	g.Expect(started.Read(make([]byte, 1))).To(Equal(1))
}

// filled returns how many processes a task of a user got that has as many as it can; nobody watches it.
func filled(t *testing.T, user uint32, allowed int, without ...Protection) int {
	t.Helper()
	g := NewWithT(t)
	dir := newDir(t)
	g.Expect(os.Chown(dir, int(user), int(user))).To(Succeed())
	p, err := newSandbox(t, without...).start(t.Context(), Job{Task: "fill", Dir: dir, UID: user, GID: user, Limits: Limits{Processes: allowed}})
	g.Expect(err).NotTo(HaveOccurred())
	answer, err := p.follow(nil, nil)
	var n int
	err = errors.Join(err, p.judge(answer, p.end(), &n))
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
	return n
}

// shout writes to its standard error without an end, and more progress than anybody wants.
func shout(_ context.Context, call *Call) (any, error) {
	line := []byte(strings.Repeat("x", 1<<16))
	for range 1 << 10 {
		if _, err := os.Stderr.Write(line); err != nil {
			return nil, err
		}
	}
	for {
		call.Report(strings.Repeat("y", 1<<20))
	}
}

func TestATaskThatShouts(t *testing.T) {
	g := NewWithT(t)
	var bytes int
	j := job(newDir(t), "shout", nil, nil)
	j.Progress = func(p json.RawMessage) { bytes += len(p) }
	err := newSandbox(t).Run(t.Context(), j)
	g.Expect(err).To(And(MatchError(ErrLimit), MatchError(ContainSubstring("too large"))))
	g.Expect(bytes).To(BeNumerically("<=", maxMessages))
}

// mute says what is no message, and goes on.
func mute(context.Context, *Call) (any, error) {
	_, err := unix.Write(outputFD, append([]byte{0, 0, 0, 4}, "nope"...))
	if err != nil {
		return nil, err
	}
	select {}
}

func TestATaskThatSaysNonsense(t *testing.T) {
	g := NewWithT(t)
	dir := newDir(t)
	g.Expect(newSandbox(t).Run(t.Context(), job(dir, "mute", nil, nil))).To(MatchError(ErrLimit))
	g.Eventually(func() []string { return sandboxtest.ProcessesIn(dir) }, "10s", "5ms").Should(BeEmpty())
}

// A daemon that is killed leaves no temporary files to the next one; those of a daemon that lives stay.
func TestS5_TemporaryFilesOfAKilledDaemonGo(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("TMPDIR", t.TempDir())
	s := newSandbox(t, MountNamespace)
	held, err := s.scratch(job("/", "", nil, nil))
	g.Expect(err).NotTo(HaveOccurred())
	left, err := s.scratch(job("/", "", nil, nil))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(taskPath(left), "file"), nil, 0o600)).To(Succeed())
	g.Expect(left.Unlock()).To(Succeed()) // as the kernel does with the process
	newSandbox(t, MountNamespace)
	g.Expect(taskPath(left)).NotTo(BeADirectory())
	g.Expect(taskPath(held)).To(BeADirectory())
	g.Expect(held.Remove()).To(Succeed())
	g.Expect(os.ReadDir(os.TempDir())).To(BeEmpty())
}

package process_test

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/hack/process"
)

const patience = 20 * time.Second

// shell starts a script.
func shell(t *testing.T, script string) *process.Process {
	t.Helper()
	g := NewWithT(t)
	p, err := process.Start(filepath.Join(t.TempDir(), "log"), nil, "/bin/sh", "-c", script)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { p.Signal(syscall.SIGKILL) })
	return p
}

func TestEndsByItself(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{"true": "", "exit 3": "exit status 3", "kill -9 $$": "signal: killed"} {
		g := NewWithT(t)
		p := shell(t, script)
		g.Eventually(p.Done(), patience).Should(BeClosed())
		g.Expect(p.Alive()).To(BeFalse())
		if want == "" {
			g.Expect(p.Err()).To(Succeed())
		} else {
			g.Expect(p.Err()).To(MatchError(want))
		}
		p.Signal(syscall.SIGTERM) // nobody is there
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	for script, c := range map[string]struct {
		grace time.Duration
		want  string
	}{
		"trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done": {patience, "exit status 4"},
		"trap '' TERM; echo ready; while :; do sleep 0.1; done":       {100 * time.Millisecond, "signal: killed"},
	} {
		g := NewWithT(t)
		p := shell(t, script)
		g.Eventually(func() string { return p.Tail(1) }, patience).Should(Equal("ready"))
		g.Expect(p.Alive()).To(BeTrue())
		g.Expect(p.Stop(c.grace)).To(MatchError(c.want))
		g.Expect(p.Stop(c.grace)).To(MatchError(c.want), "a second time changes nothing")
	}
	var none *process.Process
	NewWithT(t).Expect(none.Stop(0)).To(Succeed())
	NewWithT(t).Expect(none.Alive()).To(BeFalse())
}

func TestLogIsAppendedTo(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	log := filepath.Join(t.TempDir(), "log")
	for _, word := range []string{"one", "two"} {
		p, err := process.Start(log, []string{"WORD=" + word}, "/bin/sh", "-c", `echo "$WORD"; echo end >&2`)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(p.Err()).To(Succeed())
		g.Expect(p.Tail(2)).To(Equal(word + "\nend"))
	}
	g.Expect(os.ReadFile(log)).To(BeEquivalentTo("one\nend\ntwo\nend\n"))
}

// A child must not die with the goroutine that started it, and it must not get the signals of its parent's terminal.
func TestOutlivesItsThread(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	started := make(chan *process.Process)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		p, err := process.Start(filepath.Join(t.TempDir(), "log"), nil, "/bin/sleep", "60")
		g.Expect(err).NotTo(HaveOccurred())
		started <- p
	}()
	p := <-started
	t.Cleanup(func() { p.Signal(syscall.SIGKILL) })
	g.Consistently(p.Alive, "300ms").Should(BeTrue())
	g.Expect(syscall.Getpgid(p.Pid())).To(Equal(p.Pid()))
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	_, err := process.Start(filepath.Join(t.TempDir(), "log"), nil, "/nowhere/program")
	g.Expect(err).To(MatchError("start program: fork/exec /nowhere/program: no such file or directory"))
	_, err = process.Start("/nowhere/log", nil, "/bin/true")
	g.Expect(err).To(MatchError(ContainSubstring("start true: open /nowhere/log")))
}

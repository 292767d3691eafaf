package vm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// A boot takes two seconds with KVM, and half a minute without on a busy machine.
const bootTimeout = 5 * time.Minute

// quotaScript writes against a limit of 1 MiB in the directory $1 of the mount $2, and says how much was written. It gives
// up the capabilities first: on ext4, no limit holds for CAP_SYS_RESOURCE.
const quotaScript = `
mkdir "$1"
trap 'rm -r "$1"' EXIT
chattr -p 77 +P "$1"
setquota -P 77 0 1024 0 0 "$2"
setpriv --reuid=65534 --clear-groups head -c 4M /dev/zero > "$1/file" && exit 1
stat -c %s "$1/file"
setquota -P 77 0 0 0 0 "$2"`

func prepare(t *testing.T) *Image {
	t.Helper()
	image, err := Prepare(t.Context(), t.Output())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return image
}

// buildTrivial gives an input directory with a program.
func buildTrivial(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "trivial"), "./testdata/trivial")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	return dir
}

// mine gives what lies in the cache for runs of this process, and its children.
func mine(g Gomega, image *Image) (runs, children []string) {
	runs, err := filepath.Glob(image.cache.path(runPrefix + "*/*.img"))
	g.Expect(err).NotTo(HaveOccurred())
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	g.Expect(err).NotTo(HaveOccurred())
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		g.Expect(err).NotTo(HaveOccurred())
		children = append(children, strings.Fields(string(text))...)
	}
	return runs, children
}

func TestRun(t *testing.T) {
	g := NewWithT(t)
	image := prepare(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	shell := func(script string, args ...string) []string {
		return append([]string{"bash", "-euc", script, "script"}, args...)
	}
	jobs := []Job{
		{Name: "plain", Command: []string{"/vm/trivial", "it's", "here"}},
		{Name: "quota/xfs", Disk: XFS, Command: shell(quotaScript, "/disks/xfs/q", "/disks/xfs")},
		{Name: "quota/ext4", Disk: Ext4, Command: shell(quotaScript, "/disks/ext4/q", "/disks/ext4")},
		{Name: "thin", Disk: LVM, Command: shell("lvcreate --quiet -T -V 1G -n new ws/pool; lvcreate --quiet -s -n copy ws/new; lvremove -qfy ws/new")},
		{Name: "untidy", Disk: XFS, Command: shell(`sleep 1000 & mkdir "$TMPDIR/m"; mount -t tmpfs none "$TMPDIR/m"`)},
		{Name: "slow", Command: []string{"sleep", "1000"}, Timeout: time.Second},
	}
	for i := range jobs {
		jobs[i].Dir = "/vm"
		if jobs[i].Timeout == 0 {
			jobs[i].Timeout = time.Minute
		}
	}
	var output strings.Builder
	results, err := image.Run(ctx, Options{
		Disks: Disks(), Input: buildTrivial(t), Results: t.TempDir(), Output: &output, Log: t.Output(),
	}, jobs)
	g.Expect(err).NotTo(HaveOccurred(), output.String())

	codes, left := map[string]int{}, map[string][]string{}
	for _, r := range results {
		codes[r.Name] = r.Code
		if len(r.Left) > 0 {
			left[r.Name] = r.Left
		}
	}
	g.Expect(codes).To(Equal(map[string]int{"plain": 3, "quota/xfs": 0, "quota/ext4": 0, "thin": 0, "untidy": 0, "slow": 124}), output.String())
	g.Expect(left).To(Equal(map[string][]string{
		"thin":   {"logical volume ws copy"},
		"untidy": {"file /disks/xfs/tmp/m", "mount /disks/xfs/tmp/m", "process sleep 1000"},
	}))
	g.Expect(os.ReadFile(filepath.Join(results[0].Dir, "said"))).To(BeEquivalentTo("it's here in /tmp/job\n"))
	g.Expect(output.String()).To(ContainSubstring("=== plain\nit's here in /tmp/job\n=== quota/xfs\n"))
	// A directory takes a block on ext4, and none on XFS.
	g.Expect(output.String()).To(MatchRegexp(`(?s)=== quota/xfs\n[^=]*\n1048576\n=== quota/ext4\n[^=]*\n1044480\n=== thin`))
}

func TestRunEndsAtTheDeadline(t *testing.T) {
	g := NewWithT(t)
	image := prepare(t)
	accel, err := image.resolve(t.Context(), Auto, t.Output())
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the time is over"))
	defer cancel()
	results := t.TempDir()
	job := Job{Name: "never", Dir: "/", Command: []string{"sleep", "1000"}, Timeout: time.Hour}
	got, err := image.Run(ctx, Options{Accel: accel, Results: results, Log: t.Output()}, []Job{job})
	g.Expect(got).To(BeEmpty())
	g.Expect(err).To(MatchError(And(
		ContainSubstring("the time is over"),
		ContainSubstring("console ("+filepath.Join(results, "console.log")+") ends with:"),
		ContainSubstring("never did not end"),
	)))
	_, children := mine(g, image)
	g.Expect(children).To(BeEmpty())
}

const childVariable = "WS_DAEMON_VM_TEST_CHILD"

// TestChild is not a test: it runs a command as QEMU is run, in a process that TestNothingOutlivesUs kills.
func TestChild(t *testing.T) {
	file := os.Getenv(childVariable)
	if file == "" {
		return
	}
	_ = run(exec.CommandContext(t.Context(), "bash", "-c", `echo $$ > "$1.new" && mv "$1.new" "$1" && exec sleep 1000`, "child", file))
}

func TestNothingOutlivesUs(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+file)
	g.Expect(cmd.Start()).To(Succeed())
	g.Eventually(file, "30s").Should(BeARegularFile())
	g.Expect(cmd.Process.Kill()).To(Succeed())
	g.Expect(cmd.Wait()).To(HaveOccurred())
	text, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() bool { return dead(pid) }, "30s").Should(BeTrue())
}

// dead also counts what is dead but not yet collected by its new parent.
func dead(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return true
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(status), ") Z ")
}

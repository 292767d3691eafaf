package vm

import (
	"context"
	"os/exec"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestJobsPlan(t *testing.T) {
	jobs := []Job{
		{Name: "xfs/a", Disk: XFS, Dir: "/vm/src/a", Command: []string{"/vm/bin/a/test", "-test.run=A B"}, Timeout: 90 * time.Second},
		{Name: "plain", Dir: "/", Command: []string{"true"}, Timeout: time.Millisecond},
	}
	NewWithT(t).Expect(jobsPlan(Options{Disks: []Disk{XFS, LVM}}, jobs)).To(Equal(`'disk' 'xfs'
'disk' 'lvm'
'ready'
'job' 'xfs/a' 'xfs' '/vm/src/a' '90' '/vm/bin/a/test' '-test.run=A B'
'job' 'plain' '' '/' '1' 'true'
`))
}

func TestShellPlan(t *testing.T) {
	NewWithT(t).Expect(shellPlan(Options{Disks: []Disk{Ext4}, Network: true}, 50, 132, "xterm")).To(Equal("'network'\n'disk' 'ext4'\n'shell' '50' '132' 'xterm'\n"))
}

func TestMachinePlan(t *testing.T) {
	o := MachineOptions{Address: "10.0.2.16", Script: "/vm/node/node.sh"}
	NewWithT(t).Expect(machinePlan(o)).To(Equal("'network' '10.0.2.16'\n'.' '/vm/node/node.sh'\n"))
}

// The shell takes every word as it is.
func TestCallQuotes(t *testing.T) {
	for _, word := range []string{"", "a b", "it's", "''", `$HOME "x" \`, "a\nb", "*", "-n"} {
		line := call("printf", "%s|", "first", word)
		out, err := exec.CommandContext(t.Context(), "bash", "-c", line).Output()
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(string(out)).To(Equal("first|" + word + "|"))
	}
}

func TestParse(t *testing.T) {
	g := NewWithT(t)
	for _, disk := range Disks() {
		g.Expect(ParseDisk(string(disk))).To(Equal(disk))
	}
	_, err := ParseDisk("zfs")
	g.Expect(err).To(MatchError(`unknown disk "zfs": use [xfs ext4 lvm]`))
	for _, accel := range []Accel{Auto, KVM, TCG} {
		g.Expect(ParseAccel(string(accel))).To(Equal(accel))
	}
	_, err = ParseAccel("xen")
	g.Expect(err).To(MatchError(`unknown acceleration "xen": use auto, kvm or tcg`))
}

func TestStandInForGo(t *testing.T) {
	for args, want := range map[string]string{
		"build .":                             "the VM has no Go",
		"test -c -tags faults .":              "the VM has no Go",
		"test -c -tags faults -o f ./other":   "the VM has no Go",
		"test -c -race -o f .":                "the VM has no Go",
		"test -c -tags faults -o /dev/null .": "/test.faults': No such file or directory",
		"test -c -o /dev/null .":              "/test': No such file or directory",
	} {
		out, err := goStandIn(t.Context(), args)
		NewWithT(t).Expect(err).To(HaveOccurred(), args)
		NewWithT(t).Expect(out).To(ContainSubstring(want), args)
	}
}

func goStandIn(ctx context.Context, args string) (string, error) {
	out, err := exec.CommandContext(ctx, "bash", "-c", "LC_ALL=C bash guest/bin/go "+args).CombinedOutput()
	return string(out), err
}

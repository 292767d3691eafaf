package vm

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Disk is a kind of disk that the guest prepares.
type Disk string

// The disks are mounted on /disks/NAME, all with project quota. Of LVM, that is a thin volume with XFS in a pool.
const (
	XFS  Disk = "xfs"
	Ext4 Disk = "ext4"
	LVM  Disk = "lvm"
)

// Disks gives all disks.
func Disks() []Disk { return []Disk{XFS, Ext4, LVM} }

// ParseDisk checks a name that a person typed.
func ParseDisk(name string) (Disk, error) {
	for _, disk := range Disks() {
		if name == string(disk) {
			return disk, nil
		}
	}
	return "", fmt.Errorf("unknown disk %q: use %v", name, Disks())
}

// Paths in the guest.
const (
	guestInput   = "/vm"
	guestSource  = guestInput + "/src"
	guestBin     = guestInput + "/bin"
	guestResults = "/run/vm/results"
)

// Job is a command that the guest runs as root.
type Job struct {
	// Name of the job, unique in its run: names separated by slashes.
	Name string
	// Disk on which TMPDIR is; empty: in memory.
	Disk Disk
	// Dir is the working directory, in the guest.
	Dir string
	// Command is a program and its arguments.
	Command []string
	// Timeout ends the command: a SIGQUIT, then, 10 s later, a SIGKILL. It is rounded up to seconds.
	Timeout time.Duration
}

// ResultPath gives where a job must write a file, in the guest, for it to come back. Shell scripts have the directory
// as $WS_DAEMON_VM_RESULTS.
func (j Job) ResultPath(name string) string { return path.Join(guestResults, j.Name, name) }

func (j Job) script() string {
	return call(slices.Concat([]string{"job", j.Name, string(j.Disk), j.Dir, wholeSeconds(j.Timeout)}, j.Command)...)
}

func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// jobsPlan is what the guest's init does: prepare disks and run jobs.
func jobsPlan(o Options, jobs []Job) string {
	var plan strings.Builder
	plan.WriteString(systemPlan(o) + call("ready"))
	for _, job := range jobs {
		plan.WriteString(job.script())
	}
	return plan.String()
}

// shellPlan gives the console, of a size in characters, to a shell.
func shellPlan(o Options, rows, columns int, term string) string {
	return systemPlan(o) + call("shell", strconv.Itoa(rows), strconv.Itoa(columns), term)
}

// machinePlan gives the machine to a script.
func machinePlan(o MachineOptions) string { return call("network", o.Address) + call(".", o.Script) }

// systemPlan prepares what the machine has.
func systemPlan(o Options) string {
	var plan strings.Builder
	if o.Network {
		plan.WriteString(call("network"))
	}
	for _, disk := range o.Disks {
		plan.WriteString(call("disk", string(disk)))
	}
	return plan.String()
}

// call gives a line of the plan: a function and its arguments.
func call(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ") + "\n"
}

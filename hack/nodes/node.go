package nodes

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/hack/vm"
)

// guest is what the init of a node runs.
//
//go:embed guest
var guest embed.FS

const (
	// Outside is the address at which nodes and pods find this machine.
	Outside = "10.0.2.2"
	// agentPort and kubeletPort are those of the guest.
	agentPort, kubeletPort = 9000, 10250
	// firstAddress is the last number of the first node's address.
	firstAddress = 15
	// bootLimit is how long a node may take from power on until it is ready, where every instruction is emulated.
	bootLimit = 6 * time.Minute
)

// Node is a virtual machine with a kubelet.
type Node struct {
	// Name of the node.
	Name string
	// Disk for volumes: vm.LVM is the volume group ws with the thin pool "pool", vm.XFS is mounted at /mnt/workspaces with project quota.
	Disk vm.Disk

	cluster *Cluster
	machine *vm.Machine
	address string
	ports   ports
}

// ports of this machine that lead to those of the node.
type ports struct{ agent, kubelet int }

// AddNode makes a node, whose power is off.
func (c *Cluster) AddNode(ctx context.Context, name string, disk vm.Disk) (*Node, error) {
	number := len(c.nodes)
	n := &Node{Name: name, Disk: disk, cluster: c, address: "10.0.2." + strconv.Itoa(firstAddress+number)}
	free, err := cluster.FreePorts(2)
	if err != nil {
		return nil, err
	}
	n.ports = ports{agent: free[0], kubelet: free[1]}
	c.proxy.lead(net.JoinHostPort(n.address, strconv.Itoa(kubeletPort)), here(n.ports.kubelet))
	input := filepath.Join(n.dir(), "input")
	if err := n.writeInput(ctx, input, fmt.Sprintf("10.244.%d.0/24", number)); err != nil {
		return nil, fmt.Errorf("add node %s: %w", name, err)
	}
	n.machine, err = c.image.NewMachine(ctx, vm.MachineOptions{
		Options: vm.Options{
			Accel: c.options.Accel, Memory: c.options.Memory, CPUs: c.options.CPUs, Disks: []vm.Disk{disk}, Input: input, Log: c.options.Log,
		},
		Dir: n.dir(), Address: n.address, Script: "/vm/node/node.sh",
		Forward: map[int]int{n.ports.agent: agentPort, n.ports.kubelet: kubeletPort},
	})
	if err != nil {
		return nil, fmt.Errorf("add node %s: %w", name, err)
	}
	c.nodes = append(c.nodes, n)
	if err := os.RemoveAll(input); err != nil {
		return nil, fmt.Errorf("add node %s: %w", name, err)
	}
	return n, nil
}

func (n *Node) dir() string { return filepath.Join(n.cluster.options.Dir, n.Name) }

// writeInput writes what the node finds in /vm/node.
func (n *Node) writeInput(ctx context.Context, dir, pods string) error {
	to := filepath.Join(dir, "node")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"node.sh", "kubelet.yaml", "containerd.toml", "cni.conflist"} {
		text, err := guest.ReadFile("guest/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o644); err != nil {
			return err
		}
	}
	if err := n.writeKeys(to); err != nil {
		return err
	}
	_, api, err := net.SplitHostPort(strings.TrimPrefix(n.cluster.Config().Host, "https://"))
	if err != nil {
		return err
	}
	// Links take no room, and the disk is made from them.
	if out, err := exec.CommandContext(ctx, "cp", "--archive", "--link", n.cluster.containerd(), filepath.Join(to, "containerd")).CombinedOutput(); err != nil {
		return fmt.Errorf("copy what containerd begins with: %w: %s", err, out)
	}
	settings := fmt.Sprintf("NODE=%s\nADDRESS=%s\nAPI_PORT=%s\nDISK=%s\nPODS=%s\n", n.Name, n.address, api, n.Disk, pods)
	if err := os.WriteFile(filepath.Join(to, "settings"), []byte(settings), 0o644); err != nil {
		return err
	}
	return copyPrograms(n.cluster.programs, filepath.Join(to, "bin"))
}

func (n *Node) writeKeys(to string) error {
	files, err := n.cluster.Cluster.AddNode(n.Name, n.address)
	if err != nil {
		return err
	}
	if err := vm.WriteKubeconfig(files.Kubeconfig, filepath.Join(to, "kubeconfig")); err != nil {
		return err
	}
	for name, file := range map[string]string{"ca.crt": files.CA, "kubelet.crt": files.Cert, "kubelet.key": files.Key} {
		if err := copyFile(file, filepath.Join(to, name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// copyPrograms copies the programs that the links in a directory lead to.
func copyPrograms(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, entry := range entries {
		if err := copyFile(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name()), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies what is small enough for the memory.
func copyFile(from, to string, mode os.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, mode)
}

// Start switches the power on and returns when the kubelet of this boot says that the node is ready.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("it took longer than %s", bootLimit))
	defer cancel()
	start := time.Now()
	if err := n.machine.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	var boot string
	err := n.await(ctx, "it runs", func(ctx context.Context) (err error) {
		boot, err = n.call(ctx, "cat /proc/sys/kernel/random/boot_id")
		return err
	})
	if err != nil {
		return err
	}
	n.cluster.say("%s has booted after %.1f s", n.Name, time.Since(start).Seconds())
	if err := n.await(ctx, "it is ready", func(ctx context.Context) error { return n.ready(ctx, boot) }); err != nil {
		return err
	}
	n.cluster.say("%s is ready after %.1f s", n.Name, time.Since(start).Seconds())
	return nil
}

// await waits for something of a node whose power is on.
func (n *Node) await(ctx context.Context, what string, check func(context.Context) error) error {
	err := eventually(ctx, what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		if !n.machine.Alive() {
			return errors.New("its power is off")
		}
		return check(ctx)
	})
	if err != nil {
		return fmt.Errorf("start node %s: %w; its last words:\n%s", n.Name, err, n.machine.LastWords())
	}
	return nil
}

// ready tells whether the kubelet has reported this boot, and the node as ready.
func (n *Node) ready(ctx context.Context, boot string) error {
	node, err := n.cluster.client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if node.Status.NodeInfo.BootID != boot {
		return errors.New("its kubelet has not reported since it booted")
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return nil
}

// PowerOff cuts the power: what is not on the disks is lost.
func (n *Node) PowerOff() {
	if n.machine != nil {
		n.machine.PowerOff()
	}
}

// Alive says whether the power is on.
func (n *Node) Alive() bool { return n.machine.Alive() }

// Reboot restarts the machine without stopping its pods, as a kernel that panics does, but with all that was written on its disks.
func (n *Node) Reboot(ctx context.Context) error {
	// The answer does not always get out.
	_, _ = n.Run(ctx, "sync; echo b >/proc/sysrq-trigger")
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := n.machine.Wait(limited); err != nil {
		return fmt.Errorf("reboot node %s: %w", n.Name, err)
	}
	return n.Start(ctx)
}

// KeepLogs copies what the machine has said, and its logs if it still answers, into a directory.
func (n *Node) KeepLogs(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	consoleErr := os.WriteFile(filepath.Join(dir, n.Name+".console"), []byte(process.LastLines(n.machine.LastWords(), 1000)), 0o644)
	const script = `for f in /var/log/*.log /var/log/pods/*/*/*.log; do echo "=== $f"; tail -n 2000 "$f"; done; findmnt; lvs -a; dmesg | tail -n 200`
	out, err := n.call(ctx, script)
	if err != nil {
		out += "\n" + err.Error()
	}
	return errors.Join(consoleErr, os.WriteFile(filepath.Join(dir, n.Name+".log"), []byte(out), 0o644))
}

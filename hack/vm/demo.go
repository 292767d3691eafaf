package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"wsdaemon.dev/ws-daemon/hack/cluster"
	"wsdaemon.dev/ws-daemon/hack/prometheus"
	"wsdaemon.dev/ws-daemon/hack/repository"
)

// slowness is how much longer than usual the demo may wait where every instruction is emulated.
const slowness = 5

// Demo runs hack/demo in a machine, with volumes that a driver limits: "quota" or "lvm". The API server is outside.
func (i *Image) Demo(ctx context.Context, o Options, driver string, timeout time.Duration) error {
	if driver != "quota" && driver != "lvm" {
		return fmt.Errorf("VOLUME is quota or lvm in the virtual machine, not %q", driver)
	}
	o.Disks = []Disk{XFS}
	root, err := repository.Root()
	if err != nil {
		return err
	}
	test := TestOptions{Options: o.withDefaults()}
	input, done, err := i.cache.newRun(ctx, test.Log)
	if err != nil {
		return err
	}
	defer done()
	test.Input = input
	if err := prepareDemo(ctx, test, root); err != nil {
		return err
	}
	return i.withCluster(ctx, &test, root, input, func() error {
		job := Job{Name: "demo", Disk: XFS, Dir: guestSource, Timeout: timeout, Command: []string{
			"env", "VOLUME=" + driver, "STORE=" + os.Getenv("STORE"), fmt.Sprintf("DEMO_SLOWNESS=%d", slowness),
			"DEMO_KUBECONFIG=" + guestInput + "/kubeconfig", "GIT_URL=", "hack/demo/demo.sh",
		}}
		results, err := i.Run(ctx, test.Options, []Job{job})
		if err == nil && results[0].Code != 0 {
			err = errors.New("the demo failed")
		}
		return err
	})
}

// prepareDemo puts the working tree and the programs that the demo runs into the input.
func prepareDemo(ctx context.Context, o TestOptions, root string) error {
	source := filepath.Join(o.Input, "src")
	if err := copySource(root, source); err != nil {
		return fmt.Errorf("copy the working tree: %w", err)
	}
	bin := filepath.Join(source, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	for program, path := range map[string]string{"ws-daemon": ".", "demo-gitserver": "./hack/demo/gitserver", "dev-prometheus": "./hack/prometheus/cmd"} {
		if err := BuildProgram(ctx, root, filepath.Join(bin, program), path); err != nil {
			return err
		}
	}
	program, err := prometheus.Build(ctx, o.Log)
	if err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(bin, "prometheus")); err != nil {
		return err
	}
	tools, err := cluster.FindTools(ctx, o.Log, cluster.Kubectl)
	if err != nil {
		return err
	}
	return copyFile(tools[cluster.Kubectl], filepath.Join(bin, "kubectl"))
}

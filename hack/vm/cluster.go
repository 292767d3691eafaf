package vm

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"wsdaemon.dev/ws-daemon/hack/cluster"
)

// outside is the address at which the guest finds this machine.
const outside = "10.0.2.2"

// withCluster starts an API server for the time of a call, and puts what talks to it into the input of a machine: the administrator's
// kubeconfig, and programs in bin. Without KVM, an API server would take five minutes to start in the machine.
func (i *Image) withCluster(ctx context.Context, o *TestOptions, root, input string, do func() error) error {
	dir, done, err := i.cache.newRun(ctx, o.Log)
	if err != nil {
		return err
	}
	defer done()
	start := time.Now()
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(dir, "cluster"), ControllerManager: true, Log: o.Log})
	if err != nil {
		return err
	}
	defer c.Stop()
	if err := c.InstallCRDs(ctx, filepath.Join(root, "config", "crd", "bases")); err != nil {
		return err
	}
	if err := WriteKubeconfig(c.Kubeconfig(), filepath.Join(input, "kubeconfig")); err != nil {
		return err
	}
	if err := BuildProgram(ctx, root, filepath.Join(input, "bin", "ws-daemon"), "."); err != nil {
		return err
	}
	say(o.Log, "started an API server in %s", since(start))
	o.Network = true
	return do()
}

// WriteKubeconfig copies a kubeconfig, with the address that the guest has to use.
func WriteKubeconfig(from, to string) error {
	access, err := clientcmd.LoadFromFile(from)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	for _, c := range access.Clusters {
		address, err := url.Parse(c.Server)
		if err != nil {
			return fmt.Errorf("read kubeconfig: %w", err)
		}
		address.Host = outside + ":" + address.Port()
		c.Server = address.String()
	}
	return clientcmd.WriteToFile(*access, to)
}

// BuildProgram builds a static program of a package.
func BuildProgram(ctx context.Context, root, program, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program, path)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	return nil
}

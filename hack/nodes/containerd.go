package nodes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"wsdaemon.dev/ws-daemon/hack/process"
)

// importConfig is that of a containerd which runs nothing, and leaves nothing outside its directory.
const importConfig = `version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
address = %q
`

// containerd is the directory that every node's containerd begins with: it has the images. In a machine whose instructions are emulated,
// unpacking one takes longer than all the rest.
func (c *Cluster) containerd() string { return filepath.Join(c.options.Dir, "containerd") }

// importImages makes it, by a containerd on this machine, as root.
func (c *Cluster) importImages(ctx context.Context) error {
	start := time.Now()
	file := func(name string) string { return filepath.Join(c.options.Dir, name) }
	socket := file("containerd.sock")
	config := fmt.Sprintf(importConfig, c.containerd(), file("containerd.state"), socket)
	if err := os.WriteFile(file("containerd.toml"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("import images: %w", err)
	}
	containerd, err := process.Start(file("containerd.log"), nil, filepath.Join(c.programs, "containerd"), "--config", file("containerd.toml"))
	if err != nil {
		return fmt.Errorf("import images: %w", err)
	}
	defer func() { _ = containerd.Stop(requestTimeout) }()
	if err := c.ctr(ctx, containerd, socket); err != nil {
		return fmt.Errorf("import images: %w; containerd says:\n%s", err, containerd.Tail(10))
	}
	c.say("imported %d images in %.1f s", len(c.options.Images), time.Since(start).Seconds())
	return nil
}

// ctr gives the images to a containerd that has just been started.
func (c *Cluster) ctr(ctx context.Context, containerd *process.Process, socket string) error {
	run := func(ctx context.Context, args ...string) error {
		args = append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)
		out, err := exec.CommandContext(ctx, filepath.Join(c.programs, "ctr"), args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ctr %q: %w: %s", args, err, out)
		}
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := eventually(limited, "containerd answers", func(ctx context.Context) error {
		if !containerd.Alive() {
			cancel()
		}
		return run(ctx, "version")
	})
	if err != nil {
		return err
	}
	for _, image := range c.options.Images {
		if err := run(ctx, "images", "import", "--local", image); err != nil {
			return err
		}
	}
	return nil
}

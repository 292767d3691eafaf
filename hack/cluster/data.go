package cluster

import (
	"context"
	"fmt"
	"os"
)

// SaveEtcd copies the stored objects into dir, which must not exist. The cluster is stopped meanwhile and runs again
// afterwards.
func (c *Cluster) SaveEtcd(ctx context.Context, dir string) error {
	return c.offline(ctx, func() error {
		if err := copyData(c.path("etcd"), dir); err != nil {
			return fmt.Errorf("save etcd: %w", err)
		}
		return nil
	})
}

// RestoreEtcd puts back what SaveEtcd copied, as an administrator who restores the API from an old copy would: objects
// and resource versions go back in time. The cluster is stopped meanwhile and runs again afterwards.
func (c *Cluster) RestoreEtcd(ctx context.Context, dir string) error {
	return c.offline(ctx, func() error {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("restore etcd: %w", err)
		}
		if err := os.RemoveAll(c.path("etcd")); err != nil {
			return fmt.Errorf("restore etcd: %w", err)
		}
		if err := copyData(dir, c.path("etcd")); err != nil {
			return fmt.Errorf("restore etcd: %w", err)
		}
		return nil
	})
}

// offline does something while nothing runs, and starts everything again even if that failed.
func (c *Cluster) offline(ctx context.Context, do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopAll()
	failed := do()
	if err := c.startAll(ctx); err != nil {
		return err
	}
	return failed
}

func copyData(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}

package csi

import (
	"context"
	"errors"
	"slices"
	"time"

	"wsdaemon.dev/ws-daemon/internal/state"
)

// Recover makes the journal and the table of mounts agree, which is what a start, a kill and a reboot need: a use whose mount is not
// there is over, or has never begun; a mount of which the journal knows nothing is written down. It touches no mount.
func (n *Node) Recover(ctx context.Context) error {
	mounts, err := n.kubelet().mounts()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var errs []error
	for _, e := range n.Keeper.Area.Journal().List() {
		for _, u := range e.Uses {
			known[u.Target] = true
			errs = append(errs, n.forget(u.Target, mounts))
		}
	}
	for _, target := range mounts {
		if !known[target] && podOf(target) != "" {
			errs = append(errs, n.find(ctx, target))
		}
	}
	return errors.Join(errs...)
}

// forget ends a use whose target is not mounted, unless a call is at work on it.
func (n *Node) forget(target string, mounts []string) error {
	if _, mounted := slices.BinarySearch(mounts, target); mounted {
		return nil
	}
	release, err := n.take(target)
	if err != nil {
		return nil // whoever is at work on it knows better
	}
	defer release()
	there, err := n.kubelet().at(target) // it may have been mounted since the table was read
	if err != nil {
		return err
	}
	defer there.close()
	if there.mounted {
		return nil
	}
	n.Log.Info("a use has ended: nothing is mounted for it", "target", target)
	return n.returned(target)
}

// find writes down a mount of a workspace's content, whose use is not in the journal.
func (n *Node) find(ctx context.Context, target string) error {
	release, err := n.take(target)
	if err != nil {
		return nil // as above
	}
	defer release()
	there, err := n.kubelet().at(target)
	if err != nil {
		return err
	}
	defer there.close()
	if !there.mounted {
		return nil
	}
	s, ours := n.Keeper.Recognize(ctx, there.dir)
	if !ours {
		return nil
	}
	n.Log.Info("a mount was found that the journal did not have", "workspace", s.String(), "target", target)
	return n.Keeper.Found(s, state.Use{Target: target, PodUID: podOf(target)})
}

// recoverInterval is how often mounts and journal are compared while the daemon runs: a mount may go without a call, by hand.
const recoverInterval = time.Minute

// watch compares mounts and journal until ctx ends.
func (n *Node) watch(ctx context.Context) {
	tick := time.NewTicker(recoverInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := n.Recover(ctx); err != nil {
				n.Log.Error(err, "mounts of workspaces cannot be compared with the journal")
			}
		}
	}
}

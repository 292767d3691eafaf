package initializer

import (
	"context"
	"os/exec"
)

// lfs fetches the files of which the repository has only pointers, in one go after the checkout: a filter would fetch one at a time.
// The repository is set up so that its users' git knows what to do with them.
func (r *repository) lfs(ctx context.Context) error {
	if _, err := exec.LookPath("git-lfs"); err != nil {
		return newError(Invalid, err, "git-lfs is not in the daemon's image: add it, or set lfs to false")
	}
	// Its hooks come with the files: here, it would look for them where git looks for none.
	if _, err := r.run(ctx, "lfs", "install", "--local", "--skip-repo"); err != nil {
		return err
	}
	_, err := r.run(ctx, "lfs", "pull", "origin")
	return err
}

// lfsOptions make git-lfs fail in time, and use nothing but HTTP with the helper's credentials.
func lfsOptions() []string {
	return []string{
		"lfs.basictransfersonly=true", "lfs.locksverify=false", "lfs.activitytimeout=60", "lfs.dialtimeout=30", "lfs.tlstimeout=30",
		"lfs.transfer.maxretries=3", "lfs.ssh.automultiplex=false", "lfs.concurrenttransfers=8",
	}
}

package controllers

import (
	"context"
	"errors"

	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// gitLook is what a look at a workspace's repository came to; its status is nil if there is no repository.
type gitLook struct{ status *v1.GitStatus }

// lookAtGit looks at the repository of a workspace. It returns nil if it cannot tell: that is no reason not to make a backup.
func (r *WorkspaceReconciler) lookAtGit(ctx context.Context, ws *v1.Workspace, subject content.Subject) *gitLook {
	owner := ws.Spec.Owner
	state, err := r.Keeper.GitStatus(ctx, subject, uint32(owner.UID), uint32(owner.GID), gitLocation(ws.Spec.Initializer))
	switch {
	case errors.Is(err, initializer.ErrNotFound):
		return &gitLook{}
	case err != nil:
		log.FromContext(ctx).V(1).Info("the repository cannot be looked at", "workspace", subject.String(), "reason", err.Error())
		return nil
	}
	return &gitLook{&v1.GitStatus{
		Branch: state.Branch, Commit: state.Commit,
		UncommittedFiles: state.Uncommitted, TotalUncommittedFiles: state.TotalUncommitted,
		UntrackedFiles: state.Untracked, TotalUntrackedFiles: state.TotalUntracked,
		UnpushedCommits: state.Unpushed, TotalUnpushedCommits: state.TotalUnpushed,
	}}
}

// takeGit takes the result of a job that looked at the repository.
func (s *scope) takeGit(result any) {
	if look, ok := result.(*gitLook); ok && look != nil {
		s.status.Git = look.status
	}
}

// gitLocation returns where the first repository of an initializer lies; the root if it has none.
func gitLocation(i v1.Initializer) string {
	steps := append([]v1.InitializerStep{{Git: i.Git, Prebuild: i.Prebuild}}, i.Composite...)
	for _, step := range steps {
		switch {
		case step.Git != nil:
			return step.Git.CheckoutLocation
		case step.Prebuild != nil && len(step.Prebuild.Git) > 0:
			return step.Prebuild.Git[0].CheckoutLocation
		}
	}
	return ""
}

package cmd

import (
	"context"
	"errors"
	"time"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// gitVersionTimeout is long enough for a machine that has a lot else to do.
const gitVersionTimeout = 30 * time.Second

// gitCondition says whether the git that clones repositories has a version with all fixes. It is asked once: the program changes with the
// image.
func gitCondition(ctx context.Context, git initializer.Git) controllers.NodeCondition {
	ctx, cancel := context.WithTimeout(ctx, gitVersionTimeout)
	defer cancel()
	version, err := git.Version(ctx)
	c := controllers.NodeCondition{Type: v1.ConditionGitCurrent}
	switch _, old := errors.AsType[*initializer.OldVersionError](err); {
	case old:
		c.Reason, c.Message = v1.ReasonGitOld, err.Error()
	case err != nil:
		c.Reason, c.Message = v1.ReasonGitUnusable, err.Error()
	default:
		c.True, c.Reason, c.Message = true, v1.ReasonGitCurrent, "repositories are cloned by git "+version
	}
	return c
}

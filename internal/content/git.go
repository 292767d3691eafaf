package content

import (
	"context"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// gitStatusTimeout is how long a look at a repository may take: a backup waits for it.
const gitStatusTimeout = 30 * time.Second

// GitStatus looks at the repository at a location of content that users work in, as its owner. Nothing that the repository names is
// executed. [initializer.ErrNotFound] if there is none.
func (k *Keeper) GitStatus(ctx context.Context, s Subject, owner, group uint32, location string) (initializer.GitState, error) {
	driver, o, err := k.own(ctx, s)
	if err != nil {
		return initializer.GitState{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, gitStatusTimeout)
	defer cancel()
	return k.Git.Status(ctx, driver.Path(o.Volume.ID, o.Position), owner, group, location)
}

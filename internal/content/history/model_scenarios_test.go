package history

import (
	"context"
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
)

func put(packs ...string) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		var errs []error
		for _, p := range packs {
			errs = append(errs, d.PutPack(ctx, modelPack(p, true).ID, []byte(p)))
		}
		return "", errors.Join(errs...)
	}
}

func claim(workspace string, claim int64) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		return "", d.Workspace(workspace).PublishClaim(ctx, claim, Owner{UID: workspace}, nil)
	}
}

func appended(c Commit) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		_, err := d.Workspace(c.Workspace).Append(ctx, c, Name{Claim: c.Name.Claim, Number: c.Name.Number - 1})
		return "", err
	}
}

func pinned(id string, c Commit) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		return "", d.Pin(ctx, id, c, Pin{Kind: PinSnapshot})
	}
}

func unpinned(id string) program {
	return func(ctx context.Context, d *Domain) (string, error) { return "", d.Unpin(ctx, id) }
}

// copied pins what another pin has.
func copied(from, to string) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		p, err := d.Pinned(ctx, from)
		if err == nil {
			err = d.Pin(ctx, to, p.Commit, Pin{Kind: PinSnapshot})
		}
		if err != nil {
			return "", err
		}
		return d.pinKey(to), d.VerifyPacks(ctx, p.Commit.Packs)
	}
}

// save makes a backup as a node does: of what the parent has, and something new; of new things only if the parent lacks anything or
// is being collected. It is read back.
func save(c Commit, parent func(context.Context, *Domain) (Commit, error), fresh string) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		from, err := parent(ctx, d)
		if err == nil {
			err = d.VerifyPacks(ctx, from.Packs)
		}
		if err != nil && !Gone(err) {
			return "", err
		}
		var packs []Pack
		if err == nil {
			packs, err = saved(ctx, d, c, from.Packs, fresh)
		}
		if Gone(err) {
			packs, err = saved(ctx, d, c, nil, fresh+"'")
		}
		if err != nil {
			return "", err
		}
		return d.Workspace(c.Workspace).key(c.Name), d.VerifyPacks(ctx, packs)
	}
}

func saved(ctx context.Context, d *Domain, c Commit, old []Pack, fresh string) ([]Pack, error) {
	if _, err := put(fresh)(ctx, d); err != nil {
		return nil, err
	}
	c.Packs = []Pack{modelPack(fresh, true)}
	for _, p := range old {
		p.New = false
		c.Packs = append(c.Packs, p)
	}
	l, last := d.Workspace(c.Workspace), Name{Claim: c.Name.Claim, Number: c.Name.Number - 1}
	_, err := l.Append(ctx, c, last)
	if errors.Is(err, errLost) {
		_, err = l.Append(ctx, c, last)
	}
	return c.Packs, err
}

// extended makes one of many backups as a node does: it goes on from the one before, asks for nothing else, and prunes by what was listed
// before the commit.
func extended(c Commit, old Pack, fresh string) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		if _, err := put(fresh)(ctx, d); err != nil {
			return "", err
		}
		c := c // each run has its own
		c.Packs = []Pack{modelPack(fresh, true), old}
		_, listed, err := d.Workspace(c.Workspace).Extend(ctx, c, c.Parent.Name)
		if err == nil {
			_, err = listed.Prune(ctx, c.Name.Claim, Keep{Last: 1})
		}
		return "", err
	}
}

// goneOn claims a workspace, and finds what it goes on from, whatever the former owner does.
func goneOn(workspace string, n int64) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		if _, err := claim(workspace, n)(ctx, d); err != nil {
			return "", err
		}
		if _, _, err := d.Workspace(workspace).Base(ctx, n); err != nil {
			panic(fmt.Sprintf("there is nothing to go on from: %v", err))
		}
		return "", nil
	}
}

// takeOver claims a workspace and makes a backup of new things only.
func takeOver(c Commit, fresh string) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		if _, err := claim(c.Workspace, c.Name.Claim)(ctx, d); err != nil {
			return "", err
		}
		packs, err := saved(ctx, d, c, nil, fresh)
		if err == nil {
			err = d.VerifyPacks(ctx, packs)
		}
		return d.Workspace(c.Workspace).key(c.Name), err
	}
}

func snapshot(id string) func(context.Context, *Domain) (Commit, error) {
	return func(ctx context.Context, d *Domain) (Commit, error) {
		p, err := d.Pinned(ctx, id)
		return p.Commit, err
	}
}

func backup(workspace string, name Name) func(context.Context, *Domain) (Commit, error) {
	return func(ctx context.Context, d *Domain) (Commit, error) {
		c, _, err := d.Workspace(workspace).read(ctx, name)
		return c, err
	}
}

func pruned(workspace string, claim int64) program {
	return func(ctx context.Context, d *Domain) (string, error) {
		_, err := d.Workspace(workspace).Prune(ctx, claim, Keep{Last: 1})
		return "", err
	}
}

func TestModel(t *testing.T) {
	old := modelPack("old", false)
	prebuild := []program{put("old"), pinned("snap", modelCommit("z", "1.1", Name{}, old)), claim("a", 1)}
	history := []program{put("old"), claim("a", 1), appended(modelCommit("a", "1.1", Name{}, old))}
	for name, base := range map[string]scenario{
		"a snapshot goes while a workspace begins with it": {
			before: prebuild, ticks: 2,
			actors: [][]program{
				{save(modelCommit("a", "1.1", Name{}), snapshot("snap"), "new"), pruned("a", 1)},
				{unpinned("snap")},
				{collecting, collecting},
			},
		},
		"a snapshot goes while another one is made of it, and replies are lost": {
			before: prebuild, ticks: 2, lost: 1, stable: []string{"d/team/w/"},
			actors: [][]program{{copied("snap", "copy")}, {unpinned("snap")}, {collecting, collecting}},
		},
		"two collectors": {
			large: true, paused: true,
			before: prebuild, ticks: 2, stable: []string{"d/team/w/"},
			actors: [][]program{{copied("snap", "copy")}, {unpinned("snap"), collecting}, {collecting, collecting}},
		},
		"an old owner commits while a new one prunes": {
			large:  true,
			before: history, ticks: 2, stable: []string{"d/team/s/"}, atOnce: 1,
			actors: [][]program{
				{save(modelCommit("a", "1.2", Name{Claim: 1, Number: 1}), backup("a", Name{Claim: 1, Number: 1}), "late")},
				{collecting, collecting},
				{takeOver(modelCommit("a", "2.1", Name{}), "own"), pruned("a", 2)},
			},
		},
		"a new owner goes on while the old one commits and prunes": {
			before: append(history, appended(modelCommit("a", "1.2", Name{Claim: 1, Number: 1}, old))), ticks: 2, stable: []string{"d/team/s/"}, atOnce: 1,
			actors: [][]program{
				{extended(modelCommit("a", "1.3", Name{Claim: 1, Number: 2}), old, "late")},
				{goneOn("a", 2)},
				{collecting, collecting},
			},
		},
		"an upload takes days": {
			before: history, ticks: 4, stable: []string{"d/team/s/"},
			actors: [][]program{
				{save(modelCommit("a", "1.2", Name{Claim: 1, Number: 1}), backup("a", Name{Claim: 1, Number: 1}), "slow"), pruned("a", 1)},
				{collecting, collecting},
			},
		},
	} {
		for _, paused := range []bool{false, true} {
			if base.large && !exploreAll && paused != base.paused {
				continue
			}
			s := base
			s.paused = paused
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				e, w := newExplorer(t, s)
				e.explore(w)
				e.g.Expect(len(e.seen)).To(BeNumerically(">", 10_000))
				t.Logf("%d states, %d threads, %d settled, paused: %t", len(e.seen), e.threads.count, len(e.settled), paused)
			})
		}
	}
}

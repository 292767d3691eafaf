package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// Need says what of a domain needs a pack.
type Need struct {
	Pack string `json:"pack"`
	// Workspaces that have backups which need it, in the order of their names.
	Workspaces []WorkspaceNeed `json:"workspaces,omitempty"`
	// Snapshots by id: a person's, stray ones, and what was kept of a history.
	Snapshots []string `json:"snapshots,omitempty"`
	// Partial says that there may be more: not everything was read, or could be.
	Partial bool `json:"partial,omitempty"`
}

// WorkspaceNeed names backups of a workspace, newest first.
type WorkspaceNeed struct {
	Name    string `json:"name"`
	Backups []Name `json:"backups"`
}

// Count is how many backups and snapshots need the pack.
func (n Need) Count() int {
	count := len(n.Snapshots)
	for _, w := range n.Workspaces {
		count += len(w.Backups)
	}
	return count
}

// namedNeeds is how many workspaces, how many backups of each, and how many snapshots a text names.
const namedNeeds = 10

// String is a sentence for people. The lists are cut to ten names each.
func (n Need) String() string {
	var parts []string
	for _, w := range n.Workspaces[:min(len(n.Workspaces), namedNeeds)] {
		names := make([]string, len(w.Backups))
		for i, b := range w.Backups {
			names[i] = b.String()
		}
		parts = append(parts, few(names)+" of workspace "+w.Name)
	}
	if more := len(n.Workspaces) - namedNeeds; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more workspaces", more))
	}
	if len(n.Snapshots) > 0 {
		parts = append(parts, "snapshots "+few(n.Snapshots))
	}
	text := "pack " + n.Pack + " is needed by " + cmp.Or(strings.Join(parts, "; "), "nothing that was read")
	if n.Partial {
		text += "; not everything could be read, so there may be more"
	}
	return text
}

// few names ten of many.
func few(names []string) string {
	text := strings.Join(names[:min(len(names), namedNeeds)], ", ")
	if more := len(names) - namedNeeds; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// WhoNeeds finds out which backups and snapshots of the domain need packs: one answer for each pack, in their order. It reads every commit and
// pin, a request each. One that cannot be read makes the answers partial, and so does the end of ctx's time: what was found until then is
// the answer.
func (d *Domain) WhoNeeds(ctx context.Context, packs []string) []Need {
	s := &search{domain: d, needs: make([]Need, len(packs))}
	for i, id := range packs {
		s.needs[i].Pack = id
	}
	if len(packs) > 0 {
		s.below(ctx, "w/", s.commit)
		s.below(ctx, "s/", s.pin)
	}
	return s.needs
}

// search is one look for what needs packs.
type search struct {
	domain *Domain
	needs  []Need
}

func (s *search) partial() {
	for i := range s.needs {
		s.needs[i].Partial = true
	}
}

func (s *search) below(ctx context.Context, prefix string, look func(context.Context, string) error) {
	prefix = s.domain.key(prefix)
	for o, err := range s.domain.scanBy(ctx, prefix, "", maxPage) {
		if err == nil {
			err = look(ctx, strings.TrimPrefix(o.Key, prefix))
		}
		if errors.Is(err, store.ErrNotFound) {
			continue // it went meanwhile
		}
		if err != nil {
			s.partial()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (s *search) commit(ctx context.Context, rest string) error {
	workspace, key, _ := strings.Cut(rest, "/")
	name, ok := parseNameKey(key)
	if !ok || name.IsClaim() {
		return nil
	}
	c, _, err := s.domain.Workspace(workspace).Read(ctx, name)
	if err != nil {
		return err
	}
	s.found(c.Packs, func(n *Need) {
		last := len(n.Workspaces) - 1
		if last < 0 || n.Workspaces[last].Name != workspace {
			n.Workspaces = append(n.Workspaces, WorkspaceNeed{Name: workspace})
			last++
		}
		n.Workspaces[last].Backups = append(n.Workspaces[last].Backups, name)
	})
	return nil
}

func (s *search) pin(ctx context.Context, id string) error {
	p, err := s.domain.Pinned(ctx, id)
	if err != nil {
		return err
	}
	s.found(p.Commit.Packs, func(n *Need) { n.Snapshots = append(n.Snapshots, id) })
	return nil
}

func (s *search) found(packs []Pack, note func(*Need)) {
	for i := range s.needs {
		if slices.ContainsFunc(packs, func(p Pack) bool { return p.ID == s.needs[i].Pack }) {
			note(&s.needs[i])
		}
	}
}

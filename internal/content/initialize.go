package content

import (
	"context"
	"errors"
	"fmt"

	"wsdaemon.dev/ws-daemon/internal/content/history"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Initializer is one way to fill a workspace that has never had a backup. At most one of Git, Download, SnapshotID, Prebuild and
// Steps is set, or Backup; none means empty.
type Initializer struct {
	// Git is a repository to clone, Download a file to fetch.
	Git      *initializer.GitSpec
	Download *initializer.DownloadSpec
	// Credentials returns what the host of either wants to see; nil for none. It is asked only when it is needed.
	Credentials func(context.Context) (*initializer.Credentials, error)
	// Backup demands that there is a backup.
	Backup bool
	// SnapshotID returns the id of a snapshot to restore; nil for none. It is asked only when it is needed.
	SnapshotID func(context.Context) (string, error)
	// Prebuild restores a snapshot and brings its repositories up to date.
	Prebuild *Prebuild
	// Steps are done one after the other. Only the first of them may restore a snapshot.
	Steps []Initializer
}

// Prebuild is a snapshot with repositories in it.
type Prebuild struct {
	// SnapshotID returns the id of the snapshot. A *[NoBackupError] if there is none any more.
	SnapshotID func(context.Context) (string, error)
	// Repositories are of the kind Git.
	Repositories []Initializer
}

// making is new content on its way in a staging directory.
type making struct {
	*filling
	target initializer.Target
	steps  []volume.Step
	// Files and bytes that earlier steps have made.
	files, bytes int64
}

// initialize does the steps of the initializer.
func (f *filling) initialize(ctx context.Context) (volume.Content, error) {
	if _, _, err := f.prepared(history.Commit{}); err != nil {
		return volume.Content{}, err
	}
	dir, err := f.driver.Stage(ctx, f.r.UID)
	if err != nil {
		return volume.Content{}, err
	}
	r := f.r
	s := &making{filling: f, target: initializer.Target{Dir: dir, UID: r.Owner, GID: r.Group, MaxBytes: r.Size, MaxFiles: r.Inodes}}
	steps := r.Initializer.Steps
	if len(steps) == 0 {
		steps = []Initializer{r.Initializer}
	}
	for i, step := range steps {
		err := s.step(ctx, step)
		if err != nil && len(steps) > 1 {
			err = fmt.Errorf("step %d of %d of the initializer: %w", i+1, len(steps), err)
		}
		if err != nil {
			return volume.Content{}, err
		}
	}
	return s.content(len(r.Initializer.Steps) > 0), nil
}

// content sums the steps up. What was restored and then changed is not what the index of the restore describes.
func (s *making) content(composite bool) volume.Content {
	if len(s.steps) > 1 {
		s.index = nil
	}
	first := s.steps[0]
	c := volume.Content{Source: first.Source, Files: s.files, Bytes: s.bytes, Steps: s.steps}
	if composite {
		c.Source = SourceComposite
	}
	if first.Source == SourceSnapshot || first.Source == SourcePrebuild {
		c.SnapshotID = first.From
	}
	for _, step := range s.steps {
		if step.Commit != "" || step.Branch != "" {
			c.Branch, c.Commit = step.Branch, step.Commit
			break
		}
	}
	return c
}

func (s *making) step(ctx context.Context, init Initializer) error {
	switch {
	case init.Git != nil:
		return s.git(ctx, init, false)
	case init.Download != nil:
		return s.download(ctx, init)
	case init.SnapshotID != nil:
		return s.snapshot(ctx, init.SnapshotID, SourceSnapshot)
	case init.Prebuild != nil:
		return s.prebuild(ctx, *init.Prebuild)
	}
	return s.record(volume.Step{Source: SourceEmpty}, func() (initializer.Result, error) { return initializer.Empty(ctx, s.target) })
}

// record does a step, and takes down what it came to.
func (s *making) record(step volume.Step, do func() (initializer.Result, error)) error {
	began := s.k.Now()
	result, err := do()
	step.Files, step.Bytes, step.Duration = result.Files, result.Bytes, s.k.Now().Sub(began)
	s.k.stepEnded(step, err)
	if err != nil {
		return err
	}
	if result.Git != nil {
		step.Branch, step.Commit = result.Git.Branch, result.Git.Commit
	}
	s.files, s.bytes = s.files+result.Files, s.bytes+result.Bytes
	s.target.Begun = true
	s.steps = append(s.steps, step)
	return nil
}

func (k *Keeper) stepEnded(step volume.Step, err error) {
	if k.StepEnded != nil {
		k.StepEnded(step, err)
	}
}

// git clones a repository, or brings one that was restored up to date.
func (s *making) git(ctx context.Context, init Initializer, update bool) error {
	spec := *init.Git
	git := s.k.Git
	git.Progress = s.gitProgress
	return s.record(volume.Step{Source: SourceGit, From: spec.URL}, func() (_ initializer.Result, err error) {
		if spec.Credentials, err = ask(ctx, init.Credentials); err != nil {
			return initializer.Result{}, err
		}
		if update {
			return git.Update(ctx, s.target, spec)
		}
		return git.Run(ctx, s.target, spec)
	})
}

func (s *making) download(ctx context.Context, init Initializer) error {
	spec := *init.Download
	d := initializer.Download{Sandbox: s.k.Git.Sandbox, AllowedSchemes: s.k.Git.AllowedSchemes, Deny: s.k.Git.Deny, Progress: s.tell}
	return s.record(volume.Step{Source: SourceDownload, From: spec.URL}, func() (_ initializer.Result, err error) {
		if spec.Credentials, err = ask(ctx, init.Credentials); err != nil {
			return initializer.Result{}, err
		}
		return d.Run(ctx, s.target, spec)
	})
}

func ask(ctx context.Context, credentials func(context.Context) (*initializer.Credentials, error)) (*initializer.Credentials, error) {
	if credentials == nil {
		return nil, nil
	}
	return credentials(ctx)
}

// snapshot restores a snapshot into the empty directory.
func (s *making) snapshot(ctx context.Context, ask func(context.Context) (string, error), source string) error {
	if len(s.steps) > 0 {
		return errors.New("a snapshot can be restored by the first step only: it needs an empty directory")
	}
	id, commit, err := s.pinned(ctx, ask)
	if err != nil {
		return err
	}
	return s.record(volume.Step{Source: source, From: id}, func() (initializer.Result, error) {
		c, err := s.restore(ctx, s.target.Dir, commit, "snapshot "+id, otherSnapshot)
		return initializer.Result{Files: c.Files, Bytes: c.Bytes}, err
	})
}

// prebuild restores the snapshot and brings its repositories up to date. They are cloned if the snapshot is gone, and only then: one
// that is damaged is a matter for people.
func (s *making) prebuild(ctx context.Context, p Prebuild) error {
	err := s.snapshot(ctx, p.SnapshotID, SourcePrebuild)
	gone, missing := errors.AsType[*NoBackupError](err)
	if err != nil && !missing {
		return err
	}
	if missing {
		step := volume.Step{Source: SourcePrebuild, Message: "its repositories were cloned instead: there is no " + gone.Wanted}
		err := s.record(step, func() (initializer.Result, error) { return initializer.Empty(ctx, s.target) })
		if err != nil {
			return err
		}
	}
	for _, r := range p.Repositories {
		if err := s.git(ctx, r, !missing); err != nil {
			return err
		}
	}
	return nil
}

// gitProgress tells of the files that are checked out and, before there are any, of the bytes that are received.
func (s *making) gitProgress(p initializer.Progress) {
	switch p.Stage {
	case initializer.StageReceiving:
		s.tell(0, p.Bytes)
	case initializer.StageFiles:
		s.tell(p.Done, 0)
	}
}

// tell adds what a step has made to what earlier ones have.
func (s *making) tell(files, bytes int64) {
	if s.r.Progress != nil {
		s.r.Progress(s.files+files, s.bytes+bytes)
	}
}

package cmd

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// indexPath is where the inodes of a directory are remembered between two backups of it: in the user's cache.
func (p *place) indexPath(dir string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(p.store + "\x00" + p.domain + "\x00" + p.workspace + "\x00" + path))
	return filepath.Join(cache, "ws-daemon", "index", hex.EncodeToString(sum[:16]))
}

func newArchiveCreate(p *place) *cobra.Command {
	var from string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create DIR",
		Short: "Make a backup of a directory; exit code 3 if some files could not be read",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			if err := expectDirectory(args[0]); err != nil {
				return err
			}
			a, err := p.standalone(cmd.Context())
			if err != nil {
				return err
			}
			d := p.requests.display("backing up")
			a.Progress = d.show(0, 0)
			made, err := a.Create(cmd.Context(), args[0], from, p.indexPath(args[0]))
			d.end()
			if err != nil {
				return err
			}
			return p.made(made, began).print(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, "created")
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&from, "snapshot-of", "", "the `id` of a snapshot that has much of the directory: what it has is not stored again")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// expectDirectory refuses what cannot be backed up before anything is made for it.
func expectDirectory(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "back up", Path: path, Err: unix.ENOTDIR}
	}
	return err
}

func (p *place) made(m content.Made, began time.Time) summary {
	s := summary{
		Backup: m.Name.String(), Unchanged: m.Unchanged, Files: m.Tree.Files, Directories: m.Tree.Dirs, Bytes: m.Tree.Bytes,
		BytesRead: m.BytesRead, Requests: p.requests.counts(), Seconds: time.Since(began).Seconds(),
		IncompleteCount: m.Tree.UnreadableCount, Changed: m.Tree.Changed, Skipped: m.Skipped,
		Altered: named(m.Altered), AlteredCount: m.AlteredCount,
	}
	if !m.Unchanged {
		s.BytesStored = m.Stored
	}
	for _, problem := range m.Tree.Unreadable {
		s.Incomplete = append(s.Incomplete, problem.Path+": "+problem.Error)
	}
	return s
}

func newArchiveRestore(p *place) *cobra.Command {
	var backup, snapshot string
	var paths []string
	var salvage, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Write a backup into a new or empty directory, every byte verified",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			a, err := p.standalone(cmd.Context())
			if err != nil {
				return err
			}
			d := p.requests.display("restoring")
			defer d.end()
			c, err := a.Find(cmd.Context(), backup, snapshot)
			if err != nil {
				return err
			}
			files, bytes := c.Tree.Files, c.Tree.Bytes
			if len(paths) > 0 {
				files, bytes = 0, 0 // nobody has counted them
			}
			a.Progress = d.show(files, bytes)
			report, err := a.Restore(cmd.Context(), c, args[0], paths, salvage, p.indexPath(args[0]))
			d.end()
			if err != nil {
				return err
			}
			return p.restored(c.Name.String(), report, began).print(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, "restored")
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&backup, "backup", "", "the `name` of the backup, the newest complete one by default")
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "the `id` of a snapshot, in place of a backup")
	cmd.Flags().StringArrayVar(&paths, "path", nil, "a `path` in the backup, to restore only that; may be repeated")
	cmd.Flags().BoolVar(&salvage, "salvage", false, "leave out what is damaged, and name it, instead of failing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (p *place) restored(backup string, r archive.Report, began time.Time) summary {
	return summary{
		Backup: backup, Files: r.Files, Directories: r.Dirs, Bytes: r.Bytes, Requests: p.requests.counts(),
		Seconds: time.Since(began).Seconds(), Incomplete: named(r.Unreadable), IncompleteCount: r.UnreadableCount,
		Altered: named(r.Altered), AlteredCount: r.AlteredCount,
	}
}

package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newArchiveExport(p *place) *cobra.Command {
	var from source
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write a backup as a plain tar, to standard output or a file",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			toFile := len(args) == 1 && args[0] != "-"
			if asJSON && !toFile {
				return errors.New("--json needs a FILE for the tar: standard output is for the object")
			}
			a, c, err := from.find(cmd.Context(), p)
			if err != nil {
				return err
			}
			write := func(w io.Writer) error {
				defer p.requests.follow("exporting")()
				return a.Export(cmd.Context(), c, w)
			}
			if !toFile {
				return write(cmd.OutOrStdout())
			}
			if err := writeNew(args[0], write); err != nil || !asJSON {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(p.looked(c, began))
		},
	}
	p.flags(cmd)
	from.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object when the FILE is written")
	return cmd
}

// writeNew writes a file that must not exist.
func writeNew(path string, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: file exists: name another one, or remove it", path)
	}
	return writeWhole(path, write, func(half, path string) error {
		err := unix.Renameat2(unix.AT_FDCWD, half, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) { // a file system that cannot look and rename at once
			return os.Rename(half, path)
		}
		if err != nil {
			return fmt.Errorf("name the file %s: %w", path, err)
		}
		return nil
	})
}

// writeWhole writes a file that gets its name, by rename, when it is whole: half a tar looks like a whole one.
func writeWhole(path string, write func(io.Writer) error, rename func(half, path string) error) error {
	half, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(half), half.Sync(), half.Close())
	if err == nil {
		err = rename(half.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(half.Name()))
	}
	return nil
}

func newArchiveImport(p *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Store a plain tar, from standard input or a file, as the newest backup of a workspace that no node holds",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			began := time.Now()
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			a, err := p.standalone(cmd.Context())
			if err != nil {
				return err
			}
			d := p.requests.display("importing")
			a.Progress = d.show(0, 0)
			made, err := a.Import(cmd.Context(), in)
			d.end()
			if err != nil {
				return err
			}
			return p.made(made, began).print(cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON, "imported")
		},
	}
	p.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

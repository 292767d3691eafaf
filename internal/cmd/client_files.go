package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/client"
	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

func newClientFiles(a *asking) *cobra.Command {
	var from client.Source
	var recursive bool
	var o output
	cmd := &cobra.Command{
		Use: "files NAME [PATH]", Short: "List what is in a backup of a workspace", Args: wrongly(cobra.RangeArgs(1, 2)),
		Long:              "List what is in a backup of a workspace. With -o json, each file is an object on a line of its own.",
		ValidArgsFunction: a.suggestions((*asking).workspaces),
		RunE: func(cmd *cobra.Command, args []string) error {
			look, err := o.look(cmd, false)
			if err = errors.Join(err, checkSource(from)); err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			show := filePrinter(out, look.Format)
			err = a.with(cmd, func(ctx context.Context, c *client.Client) error {
				return c.Files(ctx, a.ref(args[0]), from, strings.Join(args[1:], ""), recursive, func(f *daemonv1.File) error {
					return show(rowOf(f))
				})
			})
			return errors.Join(out.Flush(), err)
		},
	}
	a.sourceFlags(cmd, &from)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "list everything below the path")
	o.flag(cmd, client.JSON, client.Name)
	return cmd
}

func filePrinter(out io.Writer, as client.Format) func(archive.Row) error {
	if as != client.Name {
		return rowPrinter(out, as == client.JSON)
	}
	return func(r archive.Row) error { // as it is: it is for programs
		_, err := fmt.Fprintln(out, r.Path)
		return err
	}
}

// rowOf is a file as backups have it.
func rowOf(f *daemonv1.File) archive.Row {
	r := archive.Row{
		Path: string(f.GetPath()), Dir: f.GetType() == daemonv1.FileType_FILE_TYPE_DIRECTORY, Size: f.GetSize(),
		Meta: format.Meta{
			Mode: uint16(f.GetMode()), UID: f.GetUid(), GID: f.GetGid(), Sec: f.GetModifyTime().GetSeconds(), Nsec: uint32(f.GetModifyTime().GetNanos()),
		},
	}
	r.Kind = map[daemonv1.FileType]format.Kind{
		daemonv1.FileType_FILE_TYPE_REGULAR: format.KindFile, daemonv1.FileType_FILE_TYPE_SYMLINK: format.KindSymlink,
		daemonv1.FileType_FILE_TYPE_FIFO: format.KindFIFO, daemonv1.FileType_FILE_TYPE_WHITEOUT: format.KindWhiteout,
	}[f.GetType()]
	if f.GetUnreadable() {
		r.Flags |= format.FlagUnreadable
	}
	if len(f.GetTarget()) > 0 {
		r.Extra = &format.Extra{Target: string(f.GetTarget())}
	}
	return r
}

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/client"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

func newClientBackup(a *asking) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup NAME", Short: "Back a workspace up now; exit code 3 if some files could not be read",
		Long: "Back a workspace up now. Once the backup runs, it goes on if this command is interrupted.\n" +
			"The exit code is 3 if some files could not be read: `ws-daemon client files` marks them.",
	}
	return a.about(cmd, func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error {
		steps := stepsOn(cmd)
		made, err := c.Backup(ctx, ws, func(r *daemonv1.BackupResponse) {
			if r.GetPhase() != daemonv1.BackupPhase_BACKUP_PHASE_DONE {
				steps.show(stepOfBackup(r))
			}
		})
		steps.end()
		if err != nil {
			return err
		}
		if look.Format == client.Table {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "workspace/%s %s\n", ws.Name, madeOf(made))
		} else {
			err = look.Backups().One(made.GetBackup())
		}
		return errors.Join(err, missing(made))
	}, client.JSON, client.YAML, client.Wide, client.Name)
}

// madeOf says in words what came of a backup.
func madeOf(r *daemonv1.BackupResponse) string {
	b := r.GetBackup()
	if r.GetUnchanged() {
		return fmt.Sprintf("equals backup %s: %s files, %s", b.GetName(), progress.Count(b.GetFiles()), progress.Bytes(b.GetBytes()))
	}
	return fmt.Sprintf("saved as backup %s: %s files, %s, %s stored, in %s", b.GetName(), progress.Count(b.GetFiles()),
		progress.Bytes(b.GetBytes()), progress.Bytes(b.GetStoredBytes()), b.GetDuration().AsDuration().Round(10*time.Millisecond))
}

// missing says that a backup lacks files.
func missing(r *daemonv1.BackupResponse) error {
	b := r.GetBackup()
	if b.GetComplete() {
		return nil
	}
	return &client.Error{Code: client.CodeIncomplete, Message: fmt.Sprintf(
		"backup %s is incomplete: %d files could not be read: %s", b.GetName(), b.GetUnreadable(), client.Printable(r.GetProblem()))}
}

func newClientSnapshot(a *asking) *cobra.Command {
	var name, policy string
	cmd := &cobra.Command{
		Use: "snapshot NAME", Short: "Keep a workspace as it is now, by a Snapshot object",
		PreRunE: func(*cobra.Command, []string) error {
			if policy != "Retain" && policy != "Delete" {
				return client.Usage("--deletion-policy %s: must be Retain or Delete", policy)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `name` of the Snapshot object; by default one is made from the workspace's. With the name of one\nthat is there, it is waited for")
	cmd.Flags().StringVar(&policy, "deletion-policy", "Retain", "what becomes of what is stored when the object is deleted: Retain or Delete")
	_ = cmd.RegisterFlagCompletionFunc("deletion-policy", cobra.FixedCompletions([]string{"Retain", "Delete"}, cobra.ShellCompDirectiveNoFileComp)) // it is there
	return a.about(cmd, func(ctx context.Context, c *client.Client, ws client.Ref, look client.Look) error {
		made, err := c.Snapshot(ctx, ws, name, policy == "Delete")
		if err != nil {
			return err
		}
		return look.Snapshots().One(made)
	}, client.JSON, client.YAML, client.Wide, client.Name)
}

// sourceFlags say which backup is looked into.
func (a *asking) sourceFlags(cmd *cobra.Command, from *client.Source) {
	cmd.Flags().StringVar(&from.Backup, "backup", "", "the `name` of the backup, the newest complete one by default")
	cmd.Flags().StringVar(&from.Snapshot, "snapshot", "", "the `id` of a snapshot, in place of a backup")
	a.complete(cmd, "backup", (*asking).backups)
}

// checkSource refuses two backups at once.
func checkSource(from client.Source) error {
	if from.Backup != "" && from.Snapshot != "" {
		return client.Usage("--backup and --snapshot name one backup each: only one of them can be looked into")
	}
	return nil
}

func newClientExport(a *asking) *cobra.Command {
	var from client.Source
	var file string
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write a backup as a plain tar, to standard output or a file", Args: wrongly(cobra.ExactArgs(1)),
		Long: "Write a backup as a plain tar, to standard output or a file. What was written to standard output is whole only if the\n" +
			"exit code is 0; a file appears when it is whole.",
		Example:           "  ws-daemon client export web -f web.tar\n  ws-daemon client export web --backup 7.40 | tar -x -C /tmp/web",
		ValidArgsFunction: a.suggestions((*asking).workspaces),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && term.IsTerminal(int(os.Stdout.Fd())) {
				return client.Usage("a tar is nothing for a terminal: name a file with -f, or pipe it into another program")
			}
			if err := checkSource(from); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *client.Client) error {
				steps := stepsOn(cmd)
				defer steps.end()
				return into(file, cmd.OutOrStdout(), func(out io.Writer) error {
					counted := &exported{out: out, steps: steps}
					return c.Export(ctx, a.ref(args[0]), from, counted, func(b *daemonv1.Backup) { counted.begin(b) })
				})
			})
		},
	}
	a.sourceFlags(cmd, &from)
	cmd.Flags().StringVarP(&file, "file", "f", "", "write it to this `file`")
	_ = cmd.MarkFlagFilename("file", "tar") // it is there
	return cmd
}

// exported shows how much of a tar was written.
type exported struct {
	out   io.Writer
	steps *steps
	step  progress.Step
}

func (e *exported) begin(b *daemonv1.Backup) {
	e.step.What, e.step.BytesTotal = "exporting backup "+client.Printable(b.GetName()), b.GetBytes()
	e.step.Files = b.GetFiles()
	e.steps.show(e.step)
}

// Write writes a part of the tar.
func (e *exported) Write(data []byte) (int, error) {
	n, err := e.out.Write(data)
	e.step.Bytes += int64(n)
	e.steps.show(e.step)
	return n, err
}

// into writes to a file that appears when it is whole, in place of what was there, or to standard output if there is no name for one.
func into(name string, out io.Writer, write func(io.Writer) error) error {
	if name == "" {
		return write(out)
	}
	return writeWhole(name, write, os.Rename)
}

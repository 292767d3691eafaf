package cmd

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	daemonv1 "wsdaemon.dev/ws-daemon/api/daemon/v1"
	"wsdaemon.dev/ws-daemon/internal/client"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

// waitTimeout is how long it is waited for a workspace, unless --timeout says otherwise.
const waitTimeout = 10 * time.Minute

// steps shows how something gets on: by a bar on a terminal, else by a line for each step.
type steps struct {
	bar  *progress.Bar
	out  io.Writer
	said string
}

func stepsOn(cmd *cobra.Command) *steps {
	return &steps{bar: progress.On(os.Stderr), out: cmd.ErrOrStderr()}
}

func (s *steps) show(step progress.Step) {
	switch {
	case s.bar != nil:
		s.bar.Show(step)
	case step.What != s.said:
		s.said = step.What
		fmt.Fprintln(s.out, step.What)
	}
}

func (s *steps) end() { s.bar.End() }

// stepOf is how a workspace that is waited for gets on.
func stepOf(ws *daemonv1.Workspace) progress.Step {
	o := ws.GetOperation()
	step := progress.Step{
		What:  client.Printable(fmt.Sprintf("%s: %s", ws.GetReason(), ws.GetMessage())),
		Files: o.GetFilesDone(), FilesTotal: o.GetFilesTotal(), Bytes: o.GetBytesDone(), BytesTotal: o.GetBytesTotal(),
	}
	if o.GetBytesDone() > 0 { // the numbers say more than the words
		step.What = o.GetType()
	}
	return step
}

// stepOfBackup is how a backup gets on.
func stepOfBackup(r *daemonv1.BackupResponse) progress.Step {
	step := progress.Step{
		What: "waiting for other work", Files: r.GetFilesDone(), FilesTotal: r.GetFilesExpected(),
		Bytes: r.GetBytesDone(), BytesTotal: r.GetBytesExpected(),
	}
	if r.GetPhase() == daemonv1.BackupPhase_BACKUP_PHASE_RUNNING {
		step.What = "backing up"
	}
	return step
}

// Package cmd holds the commands of ws-daemon. It is the only package that puts the others together.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

// Execute runs the command line and returns the process's exit code.
func Execute() int {
	initializer.Enter()
	klog.SetLogger(ctrl.Log.WithName("client")) // before anything may log by it
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		return exitCode(err)
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "ws-daemon",
		Short:         "Keeps the files of workspaces on the local disk of Kubernetes nodes, and never loses them",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newRun(), newController(), newArea(), newArchive(), newClient(), newConfig(), newVersion())
	return root
}

// exitCode is 1, unless the error has a code of its own.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

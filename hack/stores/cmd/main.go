// Command stores starts an object store on the loopback, for looking around and for the demo.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"wsdaemon.dev/ws-daemon/hack/stores"
)

const usage = `commands:
  stores build          make the servers if they are not there yet
  stores s3 --dir DIR   serve S3 from DIR, and print its endpoint
  stores gcs --dir DIR  serve Google Cloud Storage from DIR, and print its endpoint`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s", usage)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", "", "where the server keeps its data")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	start := map[string]func(context.Context, string, io.Writer) (*stores.Server, error){"s3": stores.StartS3, "gcs": stores.StartGCS}[args[0]]
	switch {
	case args[0] == "build":
		return stores.Build(ctx, os.Stderr)
	case start == nil || *dir == "":
		return fmt.Errorf("%s", usage)
	}
	server, err := start(ctx, *dir, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println(server.Endpoint)
	<-ctx.Done()
	return server.Stop()
}

// Command prometheus watches daemons of this machine with a Prometheus until it is interrupted. Then it tells how the alerts stand, and
// whether every query of the dashboard has an answer.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"wsdaemon.dev/ws-daemon/hack/prometheus"
	"wsdaemon.dev/ws-daemon/internal/cmd"
)

const usage = `commands:
  prometheus build                                    make Prometheus if it is not there yet, and print its path
  prometheus watch --dir DIR NODE=HOST:PORT...        watch the metrics of daemons, until it is interrupted`

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
	switch args[0] {
	case "build":
		path, err := prometheus.Build(ctx, os.Stderr)
		if err == nil {
			fmt.Println(path)
		}
		return err
	case "watch":
		return watch(ctx, args[1:])
	}
	return fmt.Errorf("%s", usage)
}

// watch needs the repository as working directory.
func watch(ctx context.Context, args []string) error {
	o := prometheus.Options{Nodes: map[string]string{}}
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	flags.StringVar(&o.Program, "program", "", "path of Prometheus; without it, it is built")
	flags.StringVar(&o.Dir, "dir", "", "where it keeps what it needs")
	flags.DurationVar(&o.Interval, "interval", time.Second, "pause between two looks at the daemons")
	expected := flags.String("expect", "", "alerts that may fire, with commas between them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for _, arg := range flags.Args() {
		node, address, _ := strings.Cut(arg, "=")
		o.Nodes[node] = address
	}
	if o.Dir == "" || len(o.Nodes) == 0 {
		return fmt.Errorf("%s", usage)
	}
	queries, err := prometheus.ReadQueries("config/prometheus/dashboard.json")
	if err != nil {
		return err
	}
	if o.Rules, err = prometheus.ReadRules("config/prometheus/rules.yaml"); err != nil {
		return err
	}
	if o.Program == "" {
		if o.Program, err = prometheus.Build(ctx, os.Stderr); err != nil {
			return err
		}
	}
	server, err := prometheus.Start(ctx, o)
	if err != nil {
		return err
	}
	defer server.Stop() //nolint:errcheck // it is of no use any more
	fmt.Println(server.URL)
	<-ctx.Done()
	report, err := server.Examine(context.WithoutCancel(ctx), o.Rules, queries, cmd.MetricDefinitions())
	if err != nil {
		return err
	}
	return report.Print(os.Stdout, strings.Split(*expected, ",")...)
}

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"wsdaemon.dev/ws-daemon/hack/process"
)

const (
	// stopGrace is how long a program may take to end by itself.
	stopGrace = 5 * time.Second
	// pollInterval is the time between two looks at something that is starting.
	pollInterval = 50 * time.Millisecond
)

// start starts one of the tools, which logs into NAME.log.
func (c *Cluster) start(name string, args ...string) (*process.Process, error) {
	return process.Start(c.path(name+".log"), nil, c.tools[name], args...)
}

// wait calls check until it succeeds, the program ends, or ctx does.
func wait(ctx context.Context, name string, p *process.Process, check func(context.Context) error) error {
	for {
		err := check(ctx)
		if err == nil || !p.Alive() {
			return alive(name, p)
		}
		if process.Pause(ctx, pollInterval) != nil {
			return fmt.Errorf("wait for %s: %w; it says:\n%s", name, err, p.Tail(15))
		}
	}
}

// alive gives an error with the last words of a program that has ended; one that was not started need not live. A check that
// succeeds is not enough to know that a program runs: something else may answer on its port.
func alive(name string, p *process.Process) error {
	if p == nil || p.Alive() {
		return nil
	}
	how := cmp.Or(p.Err(), errors.New("exit status 0"))
	return fmt.Errorf("%s has ended (%w); its last words:\n%s", name, how, p.Tail(15))
}

package prometheus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/metrics"
)

// history is how far a report looks back.
const history = "12h"

// Alert is how an alert stands, and stood.
type Alert struct {
	Name string
	// For is how long its condition has to hold until it fires, and Held how long it held, all times taken together.
	For, Held time.Duration
	// State is inactive, pending or firing now. Fired says whether it ever was the latter.
	State string
	Fired bool
	// Problem is why it cannot be evaluated.
	Problem string
}

// Report is what a Prometheus finds out about daemons, and about what it is asked of them.
type Report struct {
	Alerts []Alert
	// Queries is how many the dashboard has, and Answered how many of them found something.
	Queries, Answered int
	// Absent are the metrics that no daemon has had, with what is documented of that.
	Absent map[string]string
	// Problems are of queries that cannot be evaluated, daemons that do not answer and metrics of which nobody knows why they are
	// not there.
	Problems []string
}

// Examine has everything evaluated against what was read from the daemons. Definitions are their metrics: one that is absent must be
// documented to be, sometimes.
func (s *Server) Examine(ctx context.Context, rules Rules, queries []Query, definitions []metrics.Definition) (Report, error) {
	r := Report{Absent: map[string]string{}, Queries: len(queries)}
	err := errors.Join(s.examineDaemons(ctx, &r), s.examineAlerts(ctx, &r))
	known, nameErr := s.names(ctx)
	if err = errors.Join(err, nameErr); err != nil {
		return r, err
	}
	for _, q := range queries {
		r.demand(known, q.Expr, definitions)
		switch found, err := s.query(ctx, q.Expr); {
		case err != nil:
			r.Problems = append(r.Problems, fmt.Sprintf("panel %s: %s: %v", q.Panel, q.Expr, err))
		case len(found) > 0:
			r.Answered++
		}
	}
	for _, rule := range rules.Alerts {
		r.demand(known, rule.Expr, definitions)
	}
	slices.Sort(r.Problems)
	r.Problems = slices.Compact(r.Problems) // several ask for the same
	return r, nil
}

// examineDaemons expects all of them to answer.
func (s *Server) examineDaemons(ctx context.Context, r *Report) error {
	down, err := s.query(ctx, "up == 0")
	for _, d := range down {
		r.Problems = append(r.Problems, fmt.Sprintf("the daemon of %s does not answer", d.Metric["node"]))
	}
	return err
}

// names returns those of all metrics that a daemon ever had.
func (s *Server) names(ctx context.Context) (map[string]bool, error) {
	var all []string
	err := s.ask(ctx, "label/__name__/values", nil, &all)
	known := make(map[string]bool, len(all))
	for _, name := range all {
		known[name] = true
	}
	return known, err
}

// ofFleet begins the metrics of the cluster controller.
const ofFleet = "ws_daemon_fleet_"

var metricName = regexp.MustCompile(`\bws_daemon_[a-z_]+`)

// demand notes what an expression asks for that is not there.
func (r *Report) demand(known map[string]bool, expr string, definitions []metrics.Definition) {
	for _, name := range metricName.FindAllString(expr, -1) {
		if known[name] {
			continue
		}
		at := slices.IndexFunc(definitions, func(d metrics.Definition) bool {
			return d.Name == name || d.Type == metrics.Histogram && strings.HasPrefix(name, d.Name+"_")
		})
		if at >= 0 && strings.HasPrefix(name, ofFleet) {
			r.Absent[name] = "That of the cluster controller, which is not watched. " + definitions[at].Help
			continue
		}
		if at < 0 || !strings.Contains(definitions[at].Help, "absent") {
			r.Problems = append(r.Problems, fmt.Sprintf("no daemon has %s, and nothing documents when it is absent", name))
			continue
		}
		r.Absent[name] = definitions[at].Help
	}
}

// examineAlerts asks for the rules and, since their state is that of now, for what Prometheus has written down of them.
func (s *Server) examineAlerts(ctx context.Context, r *Report) error {
	var answer struct {
		Groups []struct {
			Rules []struct {
				Name, State, Health, LastError string
				Duration                       float64
			}
		}
	}
	if err := s.ask(ctx, "rules", url.Values{"type": {"alert"}}, &answer); err != nil {
		return err
	}
	held, err := s.counts(ctx, `max by (alertname) (count_over_time(ALERTS[`+history+`]))`)
	if err != nil {
		return err
	}
	fired, err := s.counts(ctx, `max by (alertname) (count_over_time(ALERTS{alertstate="firing"}[`+history+`]))`)
	if err != nil {
		return err
	}
	for _, g := range answer.Groups {
		for _, rule := range g.Rules {
			a := Alert{Name: rule.Name, State: rule.State, Fired: fired[rule.Name] > 0}
			a.For, a.Held = time.Duration(rule.Duration)*time.Second, time.Duration(held[rule.Name])*s.interval
			if rule.Health != "ok" {
				a.Problem = cmp.Or(rule.LastError, "not evaluated yet")
			}
			r.Alerts = append(r.Alerts, a)
		}
	}
	return nil
}

// counts returns the values of a query by alert.
func (s *Server) counts(ctx context.Context, expr string) (map[string]int, error) {
	found, err := s.query(ctx, expr)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int, len(found))
	for _, f := range found {
		text, _ := f.Value[1].(string)
		if counts[f.Metric["alertname"]], err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("answer to %s: %w", expr, err)
		}
	}
	return counts, nil
}

// Print writes the report, and returns an error if not everything is as it should be: no alert fires, or is about to, but those that
// are expected.
func (r Report) Print(out io.Writer, expected ...string) error {
	problems := slices.Clone(r.Problems)
	fmt.Fprintf(out, "%d alert rules were evaluated:\n", len(r.Alerts))
	for _, a := range r.Alerts {
		fmt.Fprintf(out, "  %-26s %s\n", a.Name, a)
		if a.Problem != "" {
			problems = append(problems, fmt.Sprintf("alert %s: %s", a.Name, a.Problem))
		} else if (a.Fired || a.State != "inactive") && !slices.Contains(expected, a.Name) {
			problems = append(problems, fmt.Sprintf("alert %s: %s", a.Name, a))
		}
	}
	fmt.Fprintf(out, "%d queries of the dashboard were evaluated, %d have an answer. What no daemon has had:\n", r.Queries, r.Answered)
	absent := make([]string, 0, len(r.Absent))
	for name, why := range r.Absent {
		absent = append(absent, name+": "+why)
	}
	slices.Sort(absent)
	for _, line := range absent {
		fmt.Fprintln(out, "  "+line)
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "\n"))
	}
	return nil
}

// String says in words how the alert stands.
func (a Alert) String() string {
	switch {
	case a.State != "inactive":
		return fmt.Sprintf("is %s", a.State)
	case a.Fired:
		return "has fired"
	case a.Held > 0:
		return fmt.Sprintf("was true for %s in all, and fires after %s at a time", a.Held, a.For)
	default:
		return "quiet"
	}
}

package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	"wsdaemon.dev/ws-daemon/hack/process"
	"wsdaemon.dev/ws-daemon/hack/tools"
)

const (
	startTimeout   = time.Minute
	requestTimeout = 30 * time.Second
	stopGrace      = 10 * time.Second
	pollInterval   = 50 * time.Millisecond
)

// Build makes sure that Prometheus is there, which takes some minutes the first time, and returns its path. Progress goes to log.
func Build(ctx context.Context, log io.Writer) (string, error) {
	const module = "github.com/prometheus/prometheus"
	return tools.Tool{
		Name: "prometheus", In: "prometheus", Module: module, Package: module + "/cmd/prometheus", Tags: "remove_all_sd",
	}.Build(ctx, log)
}

// Server is a Prometheus that watches daemons.
type Server struct {
	// URL is its address, as http://127.0.0.1:port.
	URL string

	interval time.Duration
	process  *process.Process
}

// Options of a Prometheus.
type Options struct {
	// Program is the path of Prometheus.
	Program string
	// Dir is where it keeps what it needs, and its log.
	Dir string
	// Rules that it evaluates.
	Rules Rules
	// Nodes are the addresses, host:port, of the daemons' metrics, by node.
	Nodes map[string]string
	// Interval between two looks at the daemons, and two evaluations of the rules: whole seconds.
	Interval time.Duration
}

// Start starts a Prometheus. The daemons are labelled as the PodMonitor labels them.
func Start(ctx context.Context, o Options) (*Server, error) {
	if err := o.write(); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, fmt.Errorf("start prometheus: %w", err)
	}
	s := &Server{URL: "http://" + address, interval: o.Interval}
	s.process, err = process.Start(filepath.Join(o.Dir, "prometheus.log"), nil, o.Program,
		"--config.file="+filepath.Join(o.Dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(o.Dir, "data"),
		"--web.listen-address="+address, "--log.level=warn")
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start prometheus: %w: %s", err, s.process.Tail(10)), s.Stop())
	}
	return s, nil
}

// write writes what Prometheus reads.
func (o Options) write() error {
	type static struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	daemons := make([]static, 0, len(o.Nodes))
	for node, address := range o.Nodes {
		daemons = append(daemons, static{[]string{address}, map[string]string{"node": node}})
	}
	often := o.Interval.String()
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]string{"scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often},
		"rule_files":     []string{"rules.yaml"},
		"scrape_configs": []map[string]any{{"job_name": "ws-daemon-system/ws-daemon", "static_configs": daemons}},
	})
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"prometheus.yaml": config, "rules.yaml": o.Rules.Text} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// await waits until the server is ready to answer.
func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := s.fetch(ctx, "/-/ready", nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-s.process.Done():
			return errors.New("it has ended")
		case <-time.After(pollInterval):
		}
	}
}

// Stop ends the server.
func (s *Server) Stop() error { return s.process.Stop(stopGrace) }

// ask asks the server's API, and decodes the data of the answer.
func (s *Server) ask(ctx context.Context, path string, parameters url.Values, data any) error {
	body, err := s.fetch(ctx, "/api/v1/"+path, parameters)
	if err != nil {
		return err
	}
	var answer struct{ Data json.RawMessage }
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("answer of %s: %w", path, err)
	}
	return json.Unmarshal(answer.Data, data)
}

func (s *Server) fetch(ctx context.Context, path string, parameters url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path+"?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		if json.Unmarshal(body, &refusal) == nil && refusal.Error != "" {
			return nil, errors.New(refusal.Error)
		}
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return body, nil
}

// sample is one series of an answer.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, and the value as text
}

// query returns what a query finds now.
func (s *Server) query(ctx context.Context, expr string) ([]sample, error) {
	var answer struct{ Result []sample }
	err := s.ask(ctx, "query", url.Values{"query": {expr}}, &answer)
	return answer.Result, err
}

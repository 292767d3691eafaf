// Package health answers whether the daemon lives, and whether it can be relied on.
//
// It lives as long as its process answers: an API server or a store that is away must not have it restarted, for it goes on backing
// up meanwhile. It is ready when it has seen its objects and its disks are usable.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

const (
	// checkTimeout is how long all checks together may take.
	checkTimeout = 5 * time.Second
	// headerTimeout and idleTimeout keep clients that say nothing from holding connections.
	headerTimeout = 5 * time.Second
	idleTimeout   = 30 * time.Second
	// retryInterval is the pause before an address is tried again.
	retryInterval = 5 * time.Second
)

// errStarting is what the daemon says before it knows what it needs.
var errStarting = errors.New("the daemon has not finished its start")

// Check says why the daemon is not ready; nil if it is, as far as it can tell. It returns soon after its context ended.
type Check func(ctx context.Context) error

// call is a check that runs.
type call struct {
	done chan struct{}
	err  error
}

// Server answers /healthz and /readyz.
type Server struct {
	logger  logr.Logger
	address string

	mu      sync.Mutex
	bound   net.Addr
	checks  map[string]Check
	calls   map[string]*call
	started bool
	said    string // what was logged last
}

// New returns a server for an address, host:port; empty: it serves nobody. It is not ready until Started is called.
func New(logger logr.Logger, address string) *Server {
	return &Server{logger: logger.WithName("health"), address: address, checks: map[string]Check{}, calls: map[string]*call{}}
}

// Address is where the server listens; empty while it does not.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound == nil {
		return ""
	}
	return s.bound.String()
}

// Require adds a check of readiness.
func (s *Server) Require(name string, check Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = check
}

// Started lets the checks decide from now on.
func (s *Server) Started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
}

// Run serves until ctx ends. An address that another program has is no reason to stop the rest of the daemon: it is waited for.
func (s *Server) Run(ctx context.Context) error {
	if s.address == "" {
		return nil
	}
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		s.logger.Error(err, "nobody can ask for health; trying again", "address", s.address)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryInterval):
		}
	}
}

// serve serves until ctx ends or it cannot.
func (s *Server) serve(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("health.address: %w: another program, or another daemon of this node, may have it", err)
	}
	s.mu.Lock()
	s.bound = listener.Addr()
	s.mu.Unlock()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.ready)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // answers are short
	defer stop()
	return server.Serve(listener)
}

// ready answers with the names of the checks. Why one fails is in the log: whoever reaches the address may read the answer.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	var text strings.Builder
	var failed []error
	for _, name := range s.names() {
		word := "ok"
		if err := s.check(ctx, name); err != nil {
			word = "failed"
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
		fmt.Fprintf(&text, "%s %s\n", name, word)
	}
	code := http.StatusOK
	if len(failed) > 0 {
		code = http.StatusServiceUnavailable
	}
	if r.Context().Err() == nil { // one that went away cut the checks short
		s.say(errors.Join(failed...))
	}
	answer(w, code, text.String())
}

func (s *Server) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return []string{"start"}
	}
	names := make([]string, 0, len(s.checks))
	for name := range s.checks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check waits for a check, but not for one that hangs. The next question waits for the same call then.
func (s *Server) check(ctx context.Context, name string) error {
	c := s.call(ctx, name)
	if c == nil {
		return errStarting
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("no answer within %s", checkTimeout)
	}
}

// call returns the call of a check that is under way, or begins one; nil if there is no such check.
func (s *Server) call(ctx context.Context, name string) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	check := s.checks[name]
	if c := s.calls[name]; c != nil || check == nil {
		return c
	}
	c := &call{done: make(chan struct{})}
	s.calls[name] = c
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout) // others may wait for it, too
		defer cancel()
		c.err = check(ctx)
		s.mu.Lock()
		delete(s.calls, name)
		s.mu.Unlock()
		close(c.done)
	}()
	return c
}

// say logs what changed.
func (s *Server) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	s.mu.Lock()
	news := text != s.said
	s.said = text
	s.mu.Unlock()
	switch {
	case news && err != nil:
		s.logger.Info("not ready", "because", text)
	case news:
		s.logger.Info("ready")
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // whoever asked went away
}

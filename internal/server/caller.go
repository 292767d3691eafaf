package server

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// caller is who calls.
type caller struct {
	// name in the audit log: of a certificate its subjects, of the socket user and process.
	name string
	// key is what calls are counted by.
	key string
	// local is a caller on the socket, who may do everything.
	local bool
	// subjects of the certificate, as rights name them.
	subjects []string
	// expires is when the certificate ends; zero without one.
	expires time.Time
}

// callerOf returns whom the transport has authenticated; with an error it is somebody who may do nothing.
func callerOf(ctx context.Context) (*caller, error) {
	nobody := &caller{name: "unknown"}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nobody, status.Error(codes.Unauthenticated, "who calls is not known")
	}
	switch info := p.AuthInfo.(type) {
	case local:
		key := fmt.Sprintf("uid %d", info.uid)
		return &caller{name: fmt.Sprintf("%s, pid %d", key, info.pid), key: key, local: true}, nil
	case credentials.TLSInfo:
		return certified(info, p.Addr)
	default:
		return nobody, status.Error(codes.Unauthenticated, "a certificate is needed")
	}
}

func certified(info credentials.TLSInfo, from net.Addr) (*caller, error) {
	c := &caller{name: "unknown at " + from.String()}
	if len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return c, status.Error(codes.Unauthenticated, "a certificate is needed")
	}
	leaf := info.State.VerifiedChains[0][0]
	c.expires = leaf.NotAfter
	for _, uri := range leaf.URIs {
		c.subjects = append(c.subjects, "URI="+uri.String())
	}
	if leaf.Subject.CommonName != "" {
		c.subjects = append(c.subjects, "CN="+leaf.Subject.CommonName)
	}
	if len(c.subjects) == 0 {
		return c, status.Error(codes.PermissionDenied, "the certificate has neither a URI nor a common name: rights are given to those")
	}
	c.key = strings.Join(c.subjects, " ")
	c.name = c.key + " at " + from.String()
	if time.Now().After(c.expires) {
		return c, errExpired
	}
	return c, nil
}

// maxCallers is how many callers are counted apart. Each has a certificate of ours, so that there are not more without a reason.
const maxCallers = 4096

// callers counts what each of them begins.
type callers struct {
	mu     sync.Mutex
	limit  rate.Limit
	burst  int
	counts map[string]*count
}

type count struct {
	*rate.Limiter
	last, said time.Time // when he called, and when it was said that he calls too often
}

func (c *callers) configure(perSecond int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit, c.burst = rate.Limit(perSecond), 2*perSecond
	c.counts = map[string]*count{}
}

// admit refuses who has begun too much; again says that it was said less than a second ago.
func (c *callers) admit(who *caller) (again bool, err error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.counts[who.key]
	if known == nil {
		c.makeRoom(now)
		known = &count{Limiter: rate.NewLimiter(c.limit, c.burst)}
		c.counts[who.key] = known
	}
	known.last = now
	if known.AllowN(now, 1) {
		return false, nil
	}
	if again = now.Sub(known.said) < time.Second; !again {
		known.said = now
	}
	return again, status.Errorf(codes.ResourceExhausted, "more than %v calls in a second (service.requestsPerSecond): try again a little later", c.limit)
}

// makeRoom forgets who has not called for long enough to have all his calls again, if there are too many.
func (c *callers) makeRoom(now time.Time) {
	if len(c.counts) < maxCallers {
		return
	}
	oldest, last := "", now
	for key, known := range c.counts {
		if !known.last.After(last) {
			oldest, last = key, known.last
		}
	}
	delete(c.counts, oldest)
}

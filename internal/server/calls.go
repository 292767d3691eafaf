package server

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxCalls is how many calls of one caller may run.
const maxCalls = 256

// calls are all that run.
type calls struct {
	mu      sync.Mutex
	running map[*call]struct{}
	of      map[string]int // how many, by caller
}

// add lets a call run, unless its caller has too many.
func (c *calls) add(one *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running, c.of = map[*call]struct{}{}, map[string]int{}
	}
	if c.of[one.who.key] >= maxCalls {
		return status.Errorf(codes.ResourceExhausted, "%d calls of the caller run: end some of them first", maxCalls)
	}
	c.running[one] = struct{}{}
	c.of[one.who.key]++
	return nil
}

func (c *calls) remove(one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, one)
	if c.of[one.who.key]--; c.of[one.who.key] == 0 {
		delete(c.of, one.who.key)
	}
}

// end ends all of them.
func (c *calls) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		one.end(why)
	}
}

// revoke ends those that a policy does not allow.
func (c *calls) revoke(p *policy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		if namespace, asked := one.about(); asked && !p.allows(one.who, one.method, namespace) {
			one.end(errRevoked)
		}
	}
}

package initializer

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// gate keeps connections off networks that are denied. It looks at the address that a connection is about to go to: no redirect, and no
// name that resolves to another address each time, gets round it.
type gate struct {
	deny []netip.Prefix

	mu   sync.Mutex
	last *deniedError
}

// deniedError means that the gate is shut for an address.
type deniedError struct {
	address netip.Addr
	network netip.Prefix
}

// Error says what is denied, and where that can be changed.
func (e *deniedError) Error() string {
	return fmt.Sprintf("the daemon's configuration denies the address %s (content.egress.deny has %s)", e.address, e.network)
}

// dialer connects through the gate, or fails in that time. Of a host with several addresses, those that are not denied are tried.
func (g *gate) dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if err := g.check(to.Addr()); err != nil {
			return err
		}
		return nil
	}}
}

// check returns nil if the gate is open for an address.
func (g *gate) check(a netip.Addr) *deniedError {
	for _, means := range meanings(a) {
		for _, network := range g.deny {
			if !network.Contains(means) {
				continue
			}
			err := &deniedError{a, network}
			g.mu.Lock()
			g.last = err
			g.mu.Unlock()
			return err
		}
	}
	return nil
}

// deniesLoopback says whether the gate is shut for any address of this machine.
func (g *gate) deniesLoopback() bool {
	return slices.ContainsFunc(g.deny, func(p netip.Prefix) bool {
		return p.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) || p.Contains(netip.IPv6Loopback())
	})
}

// denied returns what was denied last, nil if nothing was.
func (g *gate) denied() *deniedError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// meanings are the addresses that an address leads to: some have another one in them, and that of nobody is this machine's own.
func meanings(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	all := []netip.Addr{a}
	if a.IsUnspecified() {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	}
	if bytes := a.As16(); a.Is6() {
		switch {
		case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("64:ff9b:1::/48").Contains(a):
			all = append(all, netip.AddrFrom4([4]byte(bytes[12:])))
		case netip.MustParsePrefix("2002::/16").Contains(a):
			all = append(all, netip.AddrFrom4([4]byte(bytes[2:6])))
		}
	}
	return all
}

package initializer

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// gate keeps connections off networks that are denied. It looks at the address that a connection is about to go to: no redirect, and no
// name that resolves to another address each time, gets round it.
type gate struct {
	deny []netip.Prefix

	mu   sync.Mutex
	last *Error
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

// check returns an error that says what is denied, and where that can be changed.
func (g *gate) check(a netip.Addr) *Error {
	for _, means := range meanings(a) {
		for _, network := range g.deny {
			if !network.Contains(means) {
				continue
			}
			err := newError(Invalid, nil, "the daemon's configuration denies the address %s (content.egress.deny has %s)", a, network)
			g.mu.Lock()
			g.last = err
			g.mu.Unlock()
			return err
		}
	}
	return nil
}

// denied returns what was denied last, nil if nothing was.
func (g *gate) denied() *Error {
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

// errDenied tells what the gate has denied from a host that cannot be reached.
func errDenied(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

package server

import (
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc/credentials"
)

// doors let callers from the network in. Whoever has shown no certificate yet stands at the door: there are few places, and whoever has
// stood there longest makes room for those who come, so that nobody who says nothing keeps others out. Inside there is room for many, and
// for some of each caller.
type doors struct {
	net.Listener

	places doorPlaces

	mu      sync.Mutex
	waiting []*visitor // the one who came first is the first
	inside  int
	of      map[string]int // how many are inside, by caller
}

// doorPlaces are how many connections there may be: before the handshake, after it, and of one caller after it.
type doorPlaces struct{ waiting, inside, caller int }

func manyPlaces() doorPlaces { return doorPlaces{waiting: 256, inside: 1024, caller: 256} }

// visitor is a connection.
type visitor struct {
	net.Conn

	doors  *doors
	inside bool
	key    string // of the caller, inside
	left   sync.Once
}

// Accept returns the next one, who stands at the door.
func (d *doors) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	v := &visitor{Conn: c, doors: d}
	if first := d.join(v); first != nil {
		_ = first.Close()
	}
	return v, nil
}

// join puts one at the door, and returns who has to go for it.
func (d *doors) join(v *visitor) (first *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, v)
	if len(d.waiting) > d.places.waiting {
		first, d.waiting = d.waiting[0], d.waiting[1:]
	}
	return first
}

// enter lets one in whose certificate is good.
func (v *visitor) enter(info credentials.AuthInfo) error {
	key := ""
	if tls, ok := info.(credentials.TLSInfo); ok {
		who, _ := certified(tls, v.RemoteAddr()) // what it lacks is said when it calls
		key = who.key
	}
	d := v.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inside >= d.places.inside:
		return fmt.Errorf("%d callers are connected already", d.inside)
	case d.of[key] >= d.places.caller:
		return fmt.Errorf("%d connections of %s are there already", d.of[key], key)
	}
	d.waiting = slices.DeleteFunc(d.waiting, func(w *visitor) bool { return w == v })
	if d.of == nil {
		d.of = map[string]int{}
	}
	d.inside++
	d.of[key]++
	v.inside, v.key = true, key
	return nil
}

// Close ends the connection and frees its place.
func (v *visitor) Close() error {
	v.left.Do(v.leave)
	return v.Conn.Close()
}

func (v *visitor) leave() {
	d := v.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	if !v.inside {
		d.waiting = slices.DeleteFunc(d.waiting, func(w *visitor) bool { return w == v })
		return
	}
	d.inside--
	if d.of[v.key]--; d.of[v.key] == 0 {
		delete(d.of, v.key)
	}
}

package initializer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// relayConnect is how long it may take to ask for a connection, and to make it.
const relayConnect = 30 * time.Second

// relay is a SOCKS server in the sandbox, through which git makes its connections: git itself would go wherever a server sends it.
// Nil is one that nobody needs.
type relay struct {
	gate     gate
	listener net.Listener
}

// startRelay starts a relay that ends with this process, if anything is denied.
func startRelay(ctx context.Context, l net.Listener, deny []netip.Prefix) *relay {
	if len(deny) == 0 || l == nil {
		return nil
	}
	r := &relay{gate: gate{deny: deny}, listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(ctx, conn)
		}
	}()
	return r
}

// url is what git has to know of it. Names are resolved here.
func (r *relay) url() string { return "socks5h://" + r.listener.Addr().String() }

func (r *relay) port() int { return r.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // the sandbox made it

// denied returns what was denied last, nil if nothing was.
func (r *relay) denied() *deniedError {
	if r == nil {
		return nil
	}
	return r.gate.denied()
}

// What the relay answers, as RFC 1928 numbers it.
const (
	socksVersion    = 5
	socksDone       = 0
	socksDenied     = 2
	socksNoHost     = 4
	socksNoCommand  = 7
	socksNoAddress  = 8
	socksConnect    = 1
	socksIPv4       = 1
	socksName       = 3
	socksIPv6       = 4
	socksNoPassword = 0
)

func (r *relay) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(2*relayConnect)) != nil {
		return
	}
	address, code, err := readSocks(conn)
	if err != nil {
		return
	}
	var out net.Conn
	if code == socksDone {
		out, err = r.gate.dialer(relayConnect).DialContext(ctx, "tcp", address)
		switch _, denied := errors.AsType[*deniedError](err); {
		case denied:
			code = socksDenied
		case err != nil:
			code = socksNoHost
		default:
			defer func() { _ = out.Close() }()
		}
	}
	// Nobody wants to know the address on this side.
	_, err = conn.Write([]byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	if err != nil || code != socksDone || conn.SetDeadline(time.Time{}) != nil {
		return
	}
	join(conn, out)
}

// readSocks answers the greeting and reads where a connection is to go. The code says what is wrong with the wish.
func readSocks(conn io.ReadWriter) (address string, code byte, err error) {
	greeting, err := readN(conn, 2)
	if err != nil {
		return "", 0, err
	}
	if greeting[0] != socksVersion {
		return "", 0, fmt.Errorf("SOCKS version %d", greeting[0])
	}
	if _, err := readN(conn, int(greeting[1])); err != nil {
		return "", 0, err
	}
	if _, err := conn.Write([]byte{socksVersion, socksNoPassword}); err != nil {
		return "", 0, err
	}
	wish, err := readN(conn, 4)
	if err != nil {
		return "", 0, err
	}
	host, err := readHost(conn, wish[3])
	if errors.Is(err, errAddressType) {
		return "", socksNoAddress, nil
	}
	if err != nil {
		return "", 0, err
	}
	port, err := readN(conn, 2)
	if err != nil {
		return "", 0, err
	}
	if wish[1] != socksConnect {
		return "", socksNoCommand, nil
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), socksDone, nil
}

var errAddressType = errors.New("unknown type of address")

func readHost(conn io.Reader, kind byte) (string, error) {
	switch kind {
	case socksIPv4, socksIPv6:
		data, err := readN(conn, map[byte]int{socksIPv4: 4, socksIPv6: 16}[kind])
		if err != nil {
			return "", err
		}
		return net.IP(data).String(), nil
	case socksName:
		size, err := readN(conn, 1)
		if err != nil {
			return "", err
		}
		name, err := readN(conn, int(size[0]))
		return string(name), err
	}
	return "", errAddressType
}

func readN(r io.Reader, n int) ([]byte, error) {
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return data, err
}

// join passes on what comes on either side, until both have said all.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if half, ok := way[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		})
	}
	both.Wait()
}

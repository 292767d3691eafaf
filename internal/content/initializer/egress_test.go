package initializer

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	. "github.com/onsi/gomega"
)

func networks(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestS6_DeniedAddresses(t *testing.T) {
	deny := networks("127.0.0.0/8", "169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "10.96.0.1/32")
	for text, denied := range map[string]bool{
		"169.254.169.254":          true,
		"::ffff:169.254.169.254":   true,
		"::ffff:a9fe:a9fe":         true,
		"64:ff9b::a9fe:a9fe":       true,
		"64:ff9b:1::a9fe:a9fe":     true,
		"2002:a9fe:a9fe::1":        true,
		"fe80::1%eth0":             true,
		"fd00:ec2::254":            true,
		"127.0.0.1":                true,
		"127.255.255.254":          true,
		"0.0.0.0":                  true,
		"::":                       true,
		"10.96.0.1":                true,
		"10.96.0.2":                false,
		"192.0.2.1":                false,
		"2001:db8::1":              false,
		"64:ff9b::c000:201":        false,
		"2002:c000:201::a9fe:a9fe": false,
		"::1":                      false, // only what is listed
		"fd00:ec3::254":            false,
		"169.253.255.255":          false,
	} {
		err := (&gate{deny: deny}).check(netip.MustParseAddr(text))
		NewWithT(t).Expect(err != nil).To(Equal(denied), text)
		if denied {
			NewWithT(t).Expect(err.Error()).To(MatchRegexp(`^the daemon's configuration denies the address \S+ \(content\.egress\.deny has \S+\)$`))
		}
	}
}

// talker is a server that repeats what it is told.
func talker(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return l.Addr().String()
}

// socks sends the words of a client to a relay, and returns what comes back until the connection ends.
func socks(t *testing.T, deny []netip.Prefix, words []byte) []byte {
	t.Helper()
	g := NewWithT(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = l.Close() })
	r := startRelay(t.Context(), l, deny)
	g.Expect(r.url()).To(Equal("socks5h://" + l.Addr().String()))
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.Addr().String())
	g.Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	_, err = conn.Write(words)
	g.Expect(err).NotTo(HaveOccurred())
	_ = conn.(*net.TCPConn).CloseWrite() // a relay may have hung up before
	answer, _ := io.ReadAll(conn)
	return answer
}

func TestRelay(t *testing.T) {
	address := netip.MustParseAddrPort(talker(t))
	port := []byte{byte(address.Port() >> 8), byte(address.Port())}
	to := func(head []byte, more string) []byte {
		return append(append([]byte{5, 1, 0}, append(head, port...)...), more...)
	}
	connected := []byte{5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	refused := func(code byte) []byte { return []byte{5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0} }
	elsewhere := networks("192.0.2.0/24")
	for name, tt := range map[string]struct {
		deny  []netip.Prefix
		words []byte
		want  []byte
	}{
		"by address":       {elsewhere, to([]byte{5, 1, 0, 1, 127, 0, 0, 1}, "hello"), append(connected, "hello"...)},
		"by name":          {elsewhere, to(append([]byte{5, 1, 0, 3, 9}, "localhost"...), "hello"), append(connected, "hello"...)},
		"denied":           {networks("127.0.0.0/8"), to([]byte{5, 1, 0, 1, 127, 0, 0, 1}, "hello"), refused(socksDenied)},
		"denied as mapped": {networks("127.0.0.0/8"), to([]byte{5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}, ""), refused(socksDenied)},
		"denied by name":   {networks("127.0.0.0/8", "::1/128"), to(append([]byte{5, 1, 0, 3, 9}, "localhost"...), ""), refused(socksDenied)},
		"no such name":     {elsewhere, to(append([]byte{5, 1, 0, 3, 12}, "none.invalid"...), ""), refused(socksNoHost)},
		"listen":           {elsewhere, to([]byte{5, 2, 0, 1, 127, 0, 0, 1}, ""), refused(socksNoCommand)},
		"datagrams":        {elsewhere, to([]byte{5, 3, 0, 1, 127, 0, 0, 1}, ""), refused(socksNoCommand)},
		"unknown address":  {elsewhere, to([]byte{5, 1, 0, 9}, ""), refused(socksNoAddress)},
		"another version":  {elsewhere, []byte("GET / HTTP/1.1\r\n\r\n"), nil},
		"cut off":          {elsewhere, []byte{5, 1, 0, 5, 1}, []byte{5, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			got := socks(t, tt.deny, tt.words)
			if len(tt.want) == 0 {
				NewWithT(t).Expect(got).To(BeEmpty())
				return
			}
			NewWithT(t).Expect(got).To(Equal(tt.want))
		})
	}
}

func TestNothingDeniedNeedsNoRelay(t *testing.T) {
	g := NewWithT(t)
	g.Expect(startRelay(t.Context(), nil, networks("192.0.2.0/24"))).To(BeNil())
	var none *relay
	g.Expect(none.denied()).To(BeNil())
}

package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"google.golang.org/grpc/credentials"
)

// doorway is a listener for tests, to which others come by visit.
type doorway struct {
	net.Listener
	next chan net.Conn
}

func (d *doorway) Accept() (net.Conn, error) { return <-d.next, nil }

// visit has somebody come, and returns both ends.
func (d *doorway) visit(g *WithT, at *doors) (*visitor, net.Conn) {
	here, there := net.Pipe()
	d.next <- here
	c, err := at.Accept()
	g.Expect(err).NotTo(HaveOccurred())
	v, ok := c.(*visitor)
	g.Expect(ok).To(BeTrue())
	return v, there
}

// over says whether the other end has closed a connection.
func over(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// named is what a handshake says of a caller.
func named(name string) credentials.TLSInfo {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	return credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
}

func (d *doors) counts() [3]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return [3]int{len(d.waiting), d.inside, len(d.of)}
}

func TestWhoeverStandsLongestAtTheDoorMakesRoom(t *testing.T) {
	g := NewWithT(t)
	way := &doorway{next: make(chan net.Conn, 1)}
	d := &doors{Listener: way, places: doorPlaces{waiting: 2, inside: 3, caller: 2}}
	first, firstThere := way.visit(g, d)
	second, secondThere := way.visit(g, d)
	g.Expect(over(firstThere)).To(BeFalse())
	third, _ := way.visit(g, d)
	g.Expect(over(firstThere)).To(BeTrue(), "it makes room")
	g.Expect(over(secondThere)).To(BeFalse())
	g.Expect(d.counts()).To(Equal([3]int{2, 0, 0}))
	g.Expect(first.Close()).To(Succeed(), "a second time")

	g.Expect(second.enter(named("a"))).To(Succeed())
	g.Expect(d.counts()).To(Equal([3]int{1, 1, 1}), "whoever is inside makes no room")
	g.Expect(third.enter(named("a"))).To(Succeed())
	fourth, _ := way.visit(g, d)
	g.Expect(fourth.enter(named("a"))).To(MatchError("2 connections of CN=a are there already"))
	g.Expect(fourth.enter(named("b"))).To(Succeed())
	fifth, _ := way.visit(g, d)
	g.Expect(fifth.enter(named("c"))).To(MatchError("3 callers are connected already"))
	g.Expect(third.Close()).To(Succeed())
	g.Expect(third.Close()).To(Succeed(), "it leaves once")
	g.Expect(fifth.enter(named("c"))).To(Succeed())
	for _, v := range []*visitor{second, fourth, fifth} {
		g.Expect(v.Close()).To(Succeed())
	}
	g.Expect(d.counts()).To(Equal([3]int{0, 0, 0}), "nothing is remembered of those who went")
}

// However many connect and say nothing, those who have something to say get in, and at once.
func TestWhoeverSaysNothingKeepsNobodyOut(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := w.serveNetwork(1000)
	connected := w.remote(mutual(ours, ours.issue("reader")))
	w.Expect(outcome(get(connected, "team-a", "web"))).To(Equal("OK"))

	silent := make([]net.Conn, manyPlaces().waiting+50)
	for i := range silent {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.server.Config.Address)
		w.Expect(err).NotTo(HaveOccurred())
		defer c.Close()
		silent[i] = c
	}
	w.Expect(outcome(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web"))).To(Equal("OK"))
	w.Expect(outcome(get(connected, "team-a", "web"))).To(Equal("OK"), "who is inside stays there")
	w.Eventually(func() bool { return over(silent[0]) }).Should(BeTrue(), "the first ones have made room")
	w.Expect(over(silent[len(silent)-1])).To(BeFalse(), "the last ones still have some time")
	w.Expect(counted(w, "ws_daemon_service_handshakes_refused_total")).To(BeNumerically(">=", 50))
}

// What is no TLS, or ends in the middle of it, is refused, and nothing else.
func TestNoiseAtTheDoor(t *testing.T) {
	noLeaks(t)
	w := newWorld(t, workspace("team-a", "web"))
	ours := w.serveNetwork(1000)
	for name, noise := range map[string]string{
		"nothing": "", "HTTP": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "zeros": string(make([]byte, 70_000)),
		"a hello without an end": "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03", "an alert": "\x15\x03\x03\x00\x02\x02\x28",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.server.Config.Address)
			g.Expect(err).NotTo(HaveOccurred())
			defer c.Close()
			_, _ = io.WriteString(c, noise) // it may be refused before its end
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the daemon closes it
			g.Expect(outcome(get(w.remote(mutual(ours, ours.issue("reader"))), "team-a", "web"))).To(Equal("OK"))
		})
	}
}

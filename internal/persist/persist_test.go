package persist_test

import (
	"context"
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/persist"
)

func TestServe(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	attempts := []string{"taken", "taken", "away", "taken", "the end"}
	var told []string
	tried := 0
	serve := func() error {
		said := attempts[tried]
		if tried++; tried == len(attempts) {
			cancel()
		}
		return errors.New(said)
	}
	persist.Serve(ctx, time.Millisecond, serve, func(err error) { told = append(told, err.Error()) })
	g.Expect(tried).To(Equal(len(attempts)))
	g.Expect(told).To(Equal([]string{"taken", "away", "taken"}), "not what it said before, and not that it ended")
}

func TestServeEndsWhileItWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	persist.Serve(ctx, time.Hour, func() error { return errors.New("taken") }, func(error) { cancel() })
	NewWithT(t).Expect(ctx.Err()).To(HaveOccurred())
}

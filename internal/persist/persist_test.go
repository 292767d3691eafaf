package persist_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
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

// What failed an hour ago, and worked since, has failed anew.
func TestServeTellsOfWhatWasOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lasts := []time.Duration{0, time.Minute, time.Hour, 0}
		var told []time.Duration
		began := time.Now()
		serve := func() error {
			if len(lasts) == 0 {
				cancel()
				return nil
			}
			time.Sleep(lasts[0])
			lasts = lasts[1:]
			return errors.New("removed")
		}
		persist.Serve(ctx, time.Minute, serve, func(error) { told = append(told, time.Since(began)) })
		NewWithT(t).Expect(told).To(Equal([]time.Duration{0, 3*time.Minute + time.Hour}), "the second has not lasted longer than the pause")
	})
}

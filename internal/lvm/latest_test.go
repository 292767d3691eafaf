package lvm

import (
	"context"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// Passes over a workspace that has no volume yet follow each other closely. LVM is asked once, and again after every change.
func TestAbsenceIsLookedUpOnce(t *testing.T) {
	g := NewWithT(t)
	d, calls := reporting(t, recorded)
	reports := func() int {
		data, err := os.ReadFile(calls)
		g.Expect(err).NotTo(HaveOccurred())
		return strings.Count(string(data), "lvs ")
	}
	look := func() int {
		for range 3 {
			_, err := d.Get(t.Context(), "new")
			g.Expect(err).To(MatchError(volume.ErrNotFound))
		}
		return reports()
	}
	g.Expect(look()).To(Equal(1))
	g.Expect(d.tag(t.Context(), "ws.a", tagNew, "")).To(Succeed())
	g.Expect(look()).To(Equal(2))
	_, err := d.Capacity(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(look()).To(Equal(3), "how full the pool is changes without us, and what was just found out serves all")

	at, orders := d.latest.begin()
	d.latest.changed()
	d.latest.keep(report{}, at, orders)
	g.Expect(look()).To(Equal(4), "a report that was begun before a change is of no use after it")
	d.latest.at = d.latest.at.Add(-recentFor)
	g.Expect(look()).To(Equal(5), "others may have changed something")
}

// An order to let a volume go that was killed may have been carried out: whatever ended it, the tag is taken back.
func TestS1_WhatDoesNotGoIsNotGoing(t *testing.T) {
	g := NewWithT(t)
	d, calls := reporting(t, recorded)
	d.class.Root = "/nonexistent"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(d.stay(ctx, "a")).To(MatchError(os.ErrNotExist), "it is to be mounted again")
	g.Expect(os.ReadFile(calls)).To(BeEquivalentTo("lvchange --quiet --deltag wsdaemon.going -- ws/ws.a\n"))
}

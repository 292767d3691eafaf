package controllers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// counted is a disk that counts what volumes take.
type counted struct {
	volume.Driver

	mu    sync.Mutex
	usage volume.Usage
	err   error
	asked int
}

func (d *counted) Get(ctx context.Context, id string) (volume.Info, error) {
	info, err := d.Driver.Get(ctx, id)
	info.Limited = err == nil
	return info, err
}

func (d *counted) Usage(context.Context, string) (volume.Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.usage, d.err
}

func (d *counted) set(bytes, inodes int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.usage, d.err = volume.Usage{Bytes: bytes, Inodes: inodes}, err
}

func (d *counted) questions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func TestUsageOfRunningWorkspacesIsReported(t *testing.T) {
	disk := &counted{usage: volume.Usage{Bytes: 1 << 20, Inodes: 3}}
	h := newHourglassWith(t, func(w *world) {
		w.driver = func(d volume.Driver) volume.Driver { disk.Driver = d; return disk }
	})
	ws := h.create("web")
	h.running(ws)
	h.quiet()
	used := func() []int64 {
		v := h.now(ws).Status.Volume
		return []int64{v.Used.Value(), v.InodesUsed}
	}
	// later lets time pass and the daemon look, once.
	later := func(d time.Duration) {
		asked := disk.questions()
		h.clock.SetTime(h.clock.Now().Add(d))
		h.Eventually(func() int { h.wake(ws); return disk.questions() }).Should(Equal(asked + 1))
		h.quiet()
	}
	h.Expect(used()).To(Equal([]int64{1 << 20, 3}))

	disk.set(32<<20, 100, nil)
	later(measureInterval)
	h.Eventually(used).Should(Equal([]int64{32 << 20, 100}))
	before, requests := disk.questions(), len(h.traffic.writes("workspaces", "web"))
	for range 20 {
		h.wake(ws)
	}
	h.quiet()
	h.Expect(disk.questions()).To(Equal(before), "it is asked once in a minute")

	disk.set(32<<20+200<<10, 101, nil)
	later(measureInterval)
	h.Expect(used()).To(Equal([]int64{32 << 20, 100}), "less than a hundredth of 64Mi, and so soon")
	h.Expect(h.traffic.writes("workspaces", "web")).To(HaveLen(requests))
	later(usageInterval)
	h.Eventually(used).Should(Equal([]int64{33 << 20, 101}), "rounded up")

	disk.set(0, 0, errors.New("it burns"))
	later(usageInterval)
	h.running(ws)
	h.Expect(used()).To(Equal([]int64{33 << 20, 101}), "what cannot be told stays")
}

// Where nobody counts, usage would cost reading the tree: only backups do that.
func TestUsageThatIsNotCountedIsNotAskedFor(t *testing.T) {
	h := newHourglass(t)
	ws := h.create("web")
	h.running(ws)
	h.write(ws, "file", string(make([]byte, 1<<20)))
	used := func() int64 { return h.now(ws).Status.Volume.Used.Value() }
	before := used()
	h.clock.SetTime(h.clock.Now().Add(10 * usageInterval))
	h.wake(ws)
	h.quiet()
	h.Expect(used()).To(Equal(before))
	h.backup(ws, "now")
	h.Eventually(used).Should(BeNumerically(">=", 1<<20))
}

func TestUsageWorthAWrite(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct {
		size, old, now int64
		want           bool
	}{
		"nothing":                        {1000, 500, 500, false},
		"a hundredth of the size":        {1000, 500, 510, false},
		"more":                           {1000, 500, 511, true},
		"less":                           {1000, 500, 489, true},
		"a little without a limit":       {0, 500, 505, false},
		"more than that without a limit": {0, 500, 506, true},
	} {
		r := &WorkspaceReconciler{}
		s := &scope{ws: w.workspace("web"), now: noon}
		r.memory.usageTold(s.ws.UID, noon)
		v := &v1.VolumeStatus{Used: resource.NewQuantity(tt.old, resource.BinarySI)}
		if tt.size > 0 {
			v.Size = resource.NewQuantity(tt.size, resource.BinarySI)
		}
		w.Expect(r.usageWorthIt(s, v, state.Usage{Bytes: tt.now})).To(Equal(tt.want), name)
	}
}

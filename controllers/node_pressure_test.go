package controllers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/content"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// used returns a disk of which so many percent are in use.
func used(bytes, inodes int64) volume.Capacity {
	return volume.Capacity{Room: volume.Room{Size: 100 << 30, Free: (100 - bytes) << 30, Inodes: 1e6, FreeInodes: (100 - inodes) * 1e4}}
}

func pool(data, metadata float64) volume.Capacity {
	c := used(99, 0)
	c.Inodes, c.FreeInodes, c.Thin = 0, 0, &volume.Fill{Data: data, Metadata: metadata}
	return c
}

func TestPressureHasHysteresis(t *testing.T) {
	limits := config.Default().Node.Pressure
	bytes, inodes := []v1.Resource{v1.ResourceBytes}, []v1.Resource{v1.ResourceInodes}
	data, metadata := []v1.Resource{v1.ResourceThinData}, []v1.Resource{v1.ResourceThinMetadata}
	for name, tt := range map[string]struct {
		disk         volume.Capacity
		before, want []v1.Resource
	}{
		"empty":                           {used(0, 0), nil, nil},
		"below the limit":                 {used(89, 89), nil, nil},
		"bytes at the limit":              {used(90, 0), nil, bytes},
		"inodes at the limit":             {used(0, 90), nil, inodes},
		"full of both":                    {used(100, 100), nil, []v1.Resource{v1.ResourceBytes, v1.ResourceInodes}},
		"bytes stay":                      {used(86, 0), bytes, bytes},
		"bytes clear":                     {used(85, 0), bytes, nil},
		"inodes stay":                     {used(0, 86), inodes, inodes},
		"inodes clear":                    {used(0, 85), inodes, nil},
		"one clears, the other stays":     {used(85, 86), []v1.Resource{v1.ResourceBytes, v1.ResourceInodes}, inodes},
		"what another had does not count": {used(86, 86), bytes, bytes},
		"unknown size":                    {volume.Capacity{}, bytes, nil},
		"no inodes are counted":           {volume.Capacity{Room: volume.Room{Size: 100, Free: 50}}, inodes, nil},
		"pool below the limits":           {pool(84.9, 79.9), nil, nil},
		"pool's bytes are its data":       {pool(10, 10), bytes, nil},
		"data at the limit":               {pool(85, 0), nil, data},
		"metadata at the limit":           {pool(0, 80), nil, metadata},
		"data stay":                       {pool(80.1, 0), data, data},
		"data clear":                      {pool(80, 0), data, nil},
		"metadata stay":                   {pool(0, 70.1), metadata, metadata},
		"metadata clear":                  {pool(0, 70), metadata, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got := decidePressure(tt.disk, tt.before, limits)
			g.Expect(got).To(Equal(tt.want))
			g.Expect(decidePressure(tt.disk, got, limits)).To(Equal(tt.want), "it stays as long as nothing changes")
		})
	}
}

// A disk that hovers about the limit changes the condition once, not each time.
func TestPressureDoesNotFlap(t *testing.T) {
	g := NewWithT(t)
	var short []v1.Resource
	changes := 0
	for i := range 1000 {
		now := decidePressure(used(88+int64(i%5), 0), short, config.Default().Node.Pressure)
		if len(now) != len(short) {
			changes++
		}
		short = now
	}
	g.Expect(changes).To(Equal(1))
}

func TestDiskPressureIsToldInWords(t *testing.T) {
	limits := config.Default().Node.Pressure
	full := func(c volume.Capacity) disk { return disk{Capacity: c, short: decidePressure(c, nil, limits)} }
	fine := full(used(10, 10))
	lost := disk{err: errors.New("gone"), short: []v1.Resource{v1.ResourceBytes}}
	for name, tt := range map[string]struct {
		disks   disks
		want    *finding
		refusal string // of class a
	}{
		"room": {disks{fine, map[string]disk{"a": fine, "b": full(pool(1, 1))}}, found("EnoughRoom", "every disk that could be measured has enough room"), ""},
		"area": {
			disks{full(used(95, 0)), map[string]disk{"a": fine}},
			foundOK("Bytes", "no new workspaces are taken: the disk of the working area has 95 %% of its bytes in use (the limit is 90 %%, and it holds until 85 %%)"),
			"the disk of the working area has 95 % of its bytes in use (the limit is 90 %, and it holds until 85 %)",
		},
		"another class": {
			disks{fine, map[string]disk{"a": fine, "b": full(pool(86.4, 99))}},
			foundOK("ThinData", "class b takes no new workspaces: its disk has 86 %% of its data blocks in use (the limit is 85 %%, and it holds until 80 %%) "+
				"and has 99 %% of its metadata blocks in use (the limit is 80 %%, and it holds until 70 %%)"),
			"",
		},
		"this class, which is gone": {
			disks{fine, map[string]disk{"a": lost, "b": full(used(0, 91))}},
			foundOK("Bytes", "class a takes no new workspaces: its disk was short of bytes before it could not be measured any more; "+
				"class b takes no new workspaces: its disk has 91 %% of its inodes in use (the limit is 90 %%, and it holds until 85 %%)"),
			"the disk of volume class a was short of bytes before it could not be measured any more",
		},
	} {
		g := NewWithT(t)
		g.Expect(decideDiskPressure(tt.disks, limits)).To(Equal(tt.want), name)
		g.Expect(tt.disks.refusal("a", limits)).To(Equal(tt.refusal), name)
	}
}

func TestUnusableClassesAreNamed(t *testing.T) {
	broken := func(err error) disk { return disk{err: err} }
	for name, tt := range map[string]struct {
		classes map[string]disk
		want    *finding
	}{
		"all can be used": {map[string]disk{"a": {}, "b": {}}, nil},
		"one cannot": {
			map[string]disk{"a": {}, "b": broken(fmt.Errorf("volume class b: %w", volume.ErrNoGroup))},
			found("VolumeGroupNotFound", "volume class b cannot be used: volume group or thin pool not found"),
		},
		"two cannot": {
			map[string]disk{"a": broken(content.ErrHangs), "b": broken(volume.ErrReadOnly), "c": broken(errors.New("it burns"))},
			found("TimedOut", "volume class a cannot be used: the disk does not answer: look at its device (dmesg), and for LVM at what lvs says on the node: "+
				"context deadline exceeded; volume class b cannot be used: mounted read-only: look for errors of the disk in the kernel's log (dmesg), repair it, "+
				"and mount it writable; volume class c cannot be used: it burns"),
		},
	} {
		NewWithT(t).Expect(decideUsable(disks{classes: tt.classes})).To(Equal(tt.want), name)
	}
	for err, want := range map[error]string{
		volume.ErrReadOnly: "ReadOnly", volume.ErrOtherDisk: "AreaMissing", context.DeadlineExceeded: "TimedOut", errors.New("it burns"): "Unusable",
	} {
		NewWithT(t).Expect(decideUsable(disks{classes: map[string]disk{"a": broken(err)}}).reason).To(Equal(want))
	}
}

func TestGuardTellsWhenThereIsRelief(t *testing.T) {
	bytes := []v1.Resource{v1.ResourceBytes}
	class := func(d disk) disks { return disks{classes: map[string]disk{"a": d}} }
	g := NewWithT(t)
	var guard guard
	g.Expect(guard.set(class(disk{}))).To(BeTrue(), "the first look")
	g.Expect(guard.set(class(disk{}))).To(BeFalse())
	g.Expect(guard.set(class(disk{short: bytes}))).To(BeFalse())
	g.Expect(guard.set(class(disk{err: content.ErrHangs, short: bytes}))).To(BeFalse())
	g.Expect(guard.set(class(disk{short: bytes}))).To(BeTrue(), "it can be used again")
	g.Expect(guard.set(class(disk{}))).To(BeTrue(), "there is room again")
	g.Expect(guard.set(disks{area: disk{short: bytes}, classes: class(disk{}).classes})).To(BeFalse())
	g.Expect(guard.set(class(disk{}))).To(BeTrue(), "there is room in the working area again")
}

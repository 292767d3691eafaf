//go:build vm

package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// counting returns a driver whose programs are counted: those that were run since the last call.
func counting(t *testing.T, class Class) (d *Driver, ran func() []string) {
	t.Helper()
	g := NewWithT(t)
	d = newDriver(t, class)
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	for _, name := range []string{"lvm", d.fs.mkfs[0]} {
		path, err := d.tools.find(name)
		g.Expect(err).NotTo(HaveOccurred())
		script := fmt.Sprintf("#!/bin/sh\ncase %s in lvm) echo \"$1\" ;; *) echo mkfs ;; esac >> %s\nexec %s \"$@\"\n", name, calls, path)
		g.Expect(os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700)).To(Succeed())
	}
	d.tools.dirs = append([]string{dir}, d.tools.dirs...)
	return d, func() []string {
		text, err := os.ReadFile(calls)
		if !os.IsNotExist(err) {
			g.Expect(err).NotTo(HaveOccurred())
		}
		_ = os.Remove(calls)
		return strings.Fields(string(text))
	}
}

// What volumes cost is the same for the last as for the first: so many orders to LVM, and for usage none.
func TestManyVolumes(t *testing.T) {
	g := NewWithT(t)
	d, ran := counting(t, newClass(t, "ext4"))
	id := func(i int) string { return fmt.Sprintf("v%03d", i) }
	step := max(1, many/4)
	start := time.Now()
	for i := range many {
		g.Expect(d.Ensure(t.Context(), volume.Spec{ID: id(i), Size: 16 * mebibyte})).To(HaveField("Limited", true))
		g.Expect(ran()).To(Equal([]string{"lvs", "lvcreate", "mkfs", "lvchange"}), id(i))
		if i%step == step-1 {
			t.Logf("made %d after %s", i+1, time.Since(start).Round(time.Second))
		}
	}
	start = time.Now()
	for i := range many {
		g.Expect(d.Usage(t.Context(), id(i))).To(Equal(volume.Usage{}))
		g.Expect(d.Get(t.Context(), id(i))).To(HaveField("ID", id(i)))
	}
	g.Expect(ran()).To(BeEmpty(), "usage")
	t.Logf("measured after %s", time.Since(start).Round(time.Millisecond))
	g.Expect(d.List(t.Context())).To(HaveLen(many))
	g.Expect(ran()).To(Equal([]string{"lvs"}), "a list is one order, however long it is")
	start = time.Now()
	for i := range many {
		g.Expect(d.Remove(t.Context(), id(i))).To(Succeed())
		g.Expect(ran()).To(Equal([]string{"lvs", "lvchange", "lvremove"}), id(i))
		if i%step == step-1 {
			t.Logf("removed %d after %s", i+1, time.Since(start).Round(time.Second))
		}
	}
	g.Expect(d.List(t.Context())).To(BeEmpty())
}

// A workspace that begins with a template costs as many orders as an empty one.
func TestOrdersOfACloneAreThoseOfAnEmptyVolume(t *testing.T) {
	g := NewWithT(t)
	d, ran := counting(t, newClass(t, "ext4"))
	staged(t, d, volume.Spec{ID: "a", Size: 64 * mebibyte})
	ran()
	g.Expect(d.KeepTemplate(t.Context(), "a", template)).To(Succeed())
	g.Expect(ran()).To(Equal([]string{"lvs", "lvcreate"}))
	_, err := d.CloneTemplate(t.Context(), template, volume.Spec{ID: "b", Size: 64 * mebibyte}, prepared)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ran()).To(Equal([]string{"lvs", "lvcreate", "lvchange"}))
	_, err = d.CloneTemplate(t.Context(), template, volume.Spec{ID: "c", Size: 128 * mebibyte}, prepared)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ran()).To(Equal([]string{"lvs", "lvcreate", "lvextend", "lvchange"}), "a larger one")
}

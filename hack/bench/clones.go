package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/hack/vm"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

// cloneName stands in -only for instant starts, which are measured in the virtual machine.
const cloneName = "clone"

// thinPool is where instant starts are measured: volumes of LVM in the virtual machine.
const thinPool place = "LVM in a virtual machine"

// cloneSizes are those of the templates in GiB, all of as many files. 0 is a volume that begins empty.
func cloneSizes() []int { return []int{0, 1, 5} }

// cloneFiles is how many files a template has.
const cloneFiles = 100_000

// start is the work until users can have a volume.
func start(gib int) work {
	if gib == 0 {
		return "start with an empty volume"
	}
	return work(fmt.Sprintf("start from a template of %d GiB", gib))
}

// measures says whether a tool, or instant starts, are asked for.
func (o options) measures(name string) bool {
	return o.only == "" || slices.Contains(strings.Split(o.only, ","), name)
}

// clonesFile keeps what the virtual machine measured for the run that writes the document.
func (o options) clonesFile() string { return filepath.Join(o.cache, "clones.json") }

// measureClones has the virtual machine measure instant starts. Nothing is left of those that were measured before, for other documents.
func measureClones(ctx context.Context, o options) error {
	if err := removeIfThere(o.clonesFile()); err != nil || !o.clones || !o.measures(cloneName) {
		return err
	}
	say("measuring instant starts in the virtual machine (without KVM up to an hour)")
	image, err := vm.Prepare(ctx, os.Stderr)
	if err != nil {
		return err
	}
	results, err := os.MkdirTemp("", "ws-daemon-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(results)
	err = image.Test(ctx, vm.TestOptions{
		Options:  vm.Options{Disks: []vm.Disk{vm.LVM}, Results: results, Output: os.Stderr, Log: os.Stderr},
		Packages: []vm.Package{{Path: "test/volumes"}},
		Args:     []string{"-test.run=NONE", "-test.bench=Ready", fmt.Sprintf("-test.benchtime=%dx", o.rounds)},
		Timeout:  2 * time.Hour,
	})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(results, "results", "lvm", "test", "volumes", "ready.json"))
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(o.cache, 0o755), os.WriteFile(o.clonesFile(), data, 0o644))
}

// takeClones adds what the virtual machine measured, if it did.
func (r results) takeClones(file string) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var took map[int][]time.Duration
	if err == nil {
		err = json.Unmarshal(data, &took)
	}
	if err != nil {
		return fmt.Errorf("read the times of instant starts: %w", err)
	}
	for gib, times := range took {
		k := key{thinPool, start(gib), daemonName}
		for _, t := range times {
			r.samples[k] = append(r.samples[k], sample{cost: cost{Wall: t}})
		}
	}
	return nil
}

// cloneTable has a row for each size.
func (d document) cloneTable(s *strings.Builder) {
	fmt.Fprintf(s, "## Instant starts\n\nUntil users can have a volume of 8 GiB, on LVM in the virtual machine; the templates have %s files each. "+
		"Without KVM every\ninstruction is emulated there, so these times are long, and are to be compared with each other only.\n\n"+
		"| Work | Time (s) | Fastest (s) | Times an empty volume's |\n|---|---|---|---|\n", progress.Count(cloneFiles))
	empty := key{thinPool, start(0), daemonName}
	for _, gib := range cloneSizes() {
		k := key{thinPool, start(gib), daemonName}
		wall, ok := median(d.results, k, wallOf)
		if !ok {
			continue
		}
		ratio := "–"
		if value, ok := over(d.results, k, empty, wallOf); ok && k != empty {
			ratio = fmt.Sprintf("%.2f", value)
		}
		fmt.Fprintf(s, "| %s | %.2f | %.2f | %s |\n", k.work, wall.Seconds(), d.results.fastest(k).Seconds(), ratio)
	}
	s.WriteString("\n")
}

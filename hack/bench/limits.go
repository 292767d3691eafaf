package main

import "fmt"

// limit is something that ws-daemon promises to keep to.
type limit struct {
	what string
	unit string // of both values
	most func(r results) (value float64, ok bool)
	got  func(r results) (value float64, ok bool)
}

// Factors of the upload after a small change: some of what did not change goes along with what did.
const (
	uploadFactor = 1.1
	uploadExtra  = 2e6
)

// limits are the promises, in the order of the table.
func limits() []limit {
	small, large := manyCounts()[0], manyCounts()[1]
	return []limit{
		faster(tmpfs, full, "tar-zstd", 1.0),
		faster(tmpfs, full, "restic", 0.3),
		faster(tmpfs, unchanged, "restic", 0.12),
		faster(tmpfs, changed, "restic", 0.2),
		{"upload of " + string(changed) + " / zstd -1 of these files × 1.1 + 2 MB", "MB", compressedChange, atMost(changed, addedOf, 1e6)},
		faster(tmpfs, restore, "tar", 0.7),
		faster(tmpfs, restore, "cp", 0.55),
		faster(tmpfs, restore, "restic", 0.2),
		faster(ext4, restore, "tar", 0.7),
		faster(xfs, restore, "tar", 0.75),
		{"stored bytes / tar-zstd", "×", constant(1.0), quotient(key{tmpfs, full, daemonName}, key{tmpfs, full, "tar-zstd"}, storedOf)},
		memory(full, 150),
		memory(restore, 100),
		memory(createMany(large), 512),
		memory(restoreMany(large), 512),
		grows("time of "+string(createMany(large))+" / 100,000", createMany(large), createMany(small)),
		growsAs("cp", "time of "+string(restoreMany(large))+" / 100,000", restoreMany(large), restoreMany(small)),
		{string(moved) + ": content read", "bytes", constant(0), atMost(moved, readOf, 1)},
		{string(moved) + ": writing requests", "requests", constant(2), atMost(moved, writingOf, 1)},
		faster(tmpfs, cloned, "git", 1.0),
		instant(1, 0, 2),
		instant(5, 0, 2),
		instant(5, 1, 1.5),
		{string(single) + ": reading requests", "requests", constant(4), atMost(single, readingOf, 1)},
	}
}

// faster limits the time as a part of another tool's.
func faster(p place, w work, tool string, most float64) limit {
	return limit{
		fmt.Sprintf("time of %s on %s / %s", w, p, tool), "×", constant(most),
		quotient(key{p, w, daemonName}, key{p, w, tool}, wallOf),
	}
}

// memory limits the peak memory, in MB.
func memory(w work, most float64) limit {
	return limit{"peak memory of " + string(w), "MB", constant(most), atMost(w, memoryOf, 1e6)}
}

// linear is how much longer ten times as many files may take.
const linear = 11

// grows limits the time for ten times as many files.
func grows(what string, large, small work) limit {
	return limit{what, "×", constant(linear), quotient(key{tmpfs, large, daemonName}, key{tmpfs, small, daemonName}, wallOf)}
}

// growsAs does the same for what another tool also does. Where the machine takes more than ten times as long for ten times as many files,
// so that a plain copy grows faster, it may grow a tenth faster than that.
func growsAs(tool, what string, large, small work) limit {
	l := grows(what, large, small)
	copies := quotient(key{tmpfs, large, tool}, key{tmpfs, small, tool}, wallOf)
	l.most = func(r results) (float64, bool) {
		growth, ok := copies(r)
		return max(linear, 1.1*growth), ok
	}
	return l
}

// instant limits the time of a start as a part of that of another one. Templates of any size take the same orders to LVM; the factor is
// for what an emulated machine does besides: its times for one and the same start differ by more than a third.
func instant(gib, than int, most float64) limit {
	return limit{
		"time of " + string(start(gib)) + " / " + string(start(than)), "×", constant(most),
		quotient(key{thinPool, start(gib), daemonName}, key{thinPool, start(than), daemonName}, wallOf),
	}
}

func constant(value float64) func(results) (float64, bool) {
	return func(results) (float64, bool) { return value, true }
}

func quotient[T ~int64](a, b key, of func(sample) T) func(results) (float64, bool) {
	return func(r results) (float64, bool) { return over(r, a, b, of) }
}

// atMost is a median of ws-daemon's own, in that unit.
func atMost[T ~int64](w work, of func(sample) T, unit float64) func(results) (float64, bool) {
	return func(r results) (float64, bool) {
		value, ok := median(r, key{tmpfs, w, daemonName}, of)
		return float64(value) / unit, ok
	}
}

func compressedChange(r results) (float64, bool) {
	n, ok := middle(r.compressed)
	return (uploadFactor*float64(n) + uploadExtra) / 1e6, ok
}

// verdict says whether the limit is kept. What was not measured is not.
func (l limit) verdict(r results) (text string, kept bool) {
	got, measured := l.got(r)
	most, known := l.most(r)
	switch {
	case !measured || !known:
		return "not measured", false
	case got > most:
		return "missed", false
	default:
		return "ok", true
	}
}

// show writes a value in the limit's unit.
func (l limit) show(value float64, ok bool) string {
	switch {
	case !ok:
		return "–"
	case l.unit == "×":
		return fmt.Sprintf("%.3f ×", value)
	case l.unit == "MB":
		return fmt.Sprintf("%.1f MB", value)
	default:
		return fmt.Sprintf("%.0f %s", value, l.unit)
	}
}

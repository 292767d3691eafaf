package controllers

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/config"
	"wsdaemon.dev/ws-daemon/internal/volume"
)

// disk is what was found when a disk was measured last.
type disk struct {
	volume.Capacity
	// err says why it cannot be used; nothing else is known then but what it was short of before.
	err error
	// short names what it has too little of.
	short []v1.Resource
}

func (d disk) isShort(of v1.Resource) bool { return slices.Contains(d.short, of) }

// disks are the disks of a node.
type disks struct {
	area    disk
	classes map[string]disk
}

// threshold is when a disk is short of a resource.
type threshold struct {
	config.Threshold

	resource v1.Resource
	// what it is, in messages.
	what string
	used float64 // in percent; NaN where the disk does not have it
}

// thresholdsOf returns how much of everything is used, beside the limits. A thin pool is full by its own percentages.
func thresholdsOf(c volume.Capacity, limits config.Pressure) []threshold {
	data, metadata, bytes := math.NaN(), math.NaN(), usedPercent(c.Size, c.Free)
	if c.Thin != nil {
		data, metadata, bytes = c.Thin.Data, c.Thin.Metadata, math.NaN()
	}
	return []threshold{
		{limits.Bytes, v1.ResourceBytes, "bytes", bytes},
		{limits.Inodes, v1.ResourceInodes, "inodes", usedPercent(c.Inodes, c.FreeInodes)},
		{limits.ThinData, v1.ResourceThinData, "data blocks", data},
		{limits.ThinMetadata, v1.ResourceThinMetadata, "metadata blocks", metadata},
	}
}

func usedPercent(size, free int64) float64 {
	if size <= 0 {
		return math.NaN()
	}
	return 100 - 100*float64(free)/float64(size)
}

// decidePressure says what a disk is short of. What it was short of before stays until there is well enough, so that a disk
// at its limit does not flap.
func decidePressure(c volume.Capacity, before []v1.Resource, limits config.Pressure) []v1.Resource {
	var short []v1.Resource
	for _, t := range thresholdsOf(c, limits) {
		stays := slices.Contains(before, t.resource) && t.used > float64(t.Clear)
		if stays || t.used >= float64(t.Set) {
			short = append(short, t.resource)
		}
	}
	return short
}

// shortage says in words what a disk is short of, "" if nothing.
func (d disk) shortage(limits config.Pressure) string {
	var parts []string
	for _, t := range thresholdsOf(d.Capacity, limits) {
		switch {
		case !d.isShort(t.resource):
		case d.err != nil:
			parts = append(parts, fmt.Sprintf("was short of %s before it could not be measured any more", t.what))
		default:
			parts = append(parts, fmt.Sprintf("has %.0f %% of its %s in use (the limit is %d %%, and it holds until %d %%)", t.used, t.what, t.Set, t.Clear))
		}
	}
	return strings.Join(parts, " and ")
}

// refusal says why a class takes no new workspaces, "" if it does.
func (d disks) refusal(class string, limits config.Pressure) string {
	if text := d.area.shortage(limits); text != "" {
		return "the disk of the working area " + text
	}
	if text := d.classes[class].shortage(limits); text != "" {
		return fmt.Sprintf("the disk of volume class %s %s", class, text)
	}
	return ""
}

// decideDiskPressure sums up what the disks of a node are short of. The reason is the resource that is named first.
func decideDiskPressure(d disks, limits config.Pressure) *finding {
	f := foundOK("", "")
	var parts []string
	add := func(who string, d disk) {
		text := d.shortage(limits)
		if text == "" {
			return
		}
		if f.reason == "" {
			f.reason = string(d.short[0])
		}
		parts = append(parts, who+" "+text)
	}
	add("no new workspaces are taken: the disk of the working area", d.area)
	for _, class := range slices.Sorted(maps.Keys(d.classes)) {
		add("class "+class+" takes no new workspaces: its disk", d.classes[class])
	}
	if len(parts) == 0 {
		return found(v1.ReasonEnoughRoom, "every disk that could be measured has enough room")
	}
	f.message = clip(strings.Join(parts, "; "))
	return f
}

// decideUsable says whether all classes can be used; nil if so. Those that can are not affected by the others.
func decideUsable(d disks) *finding {
	var f *finding
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(d.classes)) {
		err := d.classes[class].err
		if err == nil {
			continue
		}
		if f == nil {
			f = found(classify(err, v1.ReasonUnusable).reason, "")
		}
		parts = append(parts, fmt.Sprintf("volume class %s cannot be used: %s", class, strings.TrimPrefix(err.Error(), "volume class "+class+": ")))
	}
	if f != nil {
		f.message = clip(strings.Join(parts, "; "))
	}
	return f
}

package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/internal/state"
)

// figuresInterval is the shortest time between two reports in which nothing but figures differs.
const figuresInterval = 15 * time.Second

// figures reports the room of all disks. A class that cannot be used is named with the reason.
func (r *NodeReconciler) figures(status *v1.WorkspaceNodeStatus, d disks, entries []state.Entry) {
	reserve := r.Workspaces.Settings.Node.ReservePercent
	status.WorkingArea = areaOf(status.WorkingArea, d.area, reserve)
	before := map[string]v1.Space{}
	for _, c := range status.Classes {
		before[c.Name] = c.Space
	}
	status.Classes = make([]v1.ClassCapacity, 0, len(d.classes))
	for _, name := range slices.Sorted(maps.Keys(d.classes)) {
		c := classOf(name, d.classes[name], reserve)
		c.Driver, c.Volumes = r.Workspaces.Keeper.Volumes[name].Name(), volumesOf(name, entries)
		c.Space = settled(before[name], c.Space)
		status.Classes = append(status.Classes, c)
	}
	status.Summary = summary(status.Classes)
}

// areaOf reports the disk of the working area; nil if there is nothing to say about it: the API server keeps no empty object.
func areaOf(before *v1.Space, d disk, reserve int) *v1.Space {
	if d.err != nil && len(d.short) == 0 {
		return nil
	}
	now := spaceOf(d, reserve)
	if before != nil {
		now = settled(*before, now)
	}
	return &now
}

func classOf(name string, d disk, reserve int) v1.ClassCapacity {
	c := v1.ClassCapacity{Name: name, Space: spaceOf(d, reserve)}
	if d.err != nil {
		c.Reason, c.Message = classify(d.err, v1.ReasonUnusable).reason, clip(d.err.Error())
		return c
	}
	c.Allocated = quantity(d.Allocated)
	if d.Thin != nil {
		c.ThinDataPercent, c.ThinMetadataPercent = wholePercent(d.Thin.Data), wholePercent(d.Thin.Metadata)
	}
	return c
}

// spaceOf reports what a disk has, and what of it is free beside the reserve.
func spaceOf(d disk, reserve int) v1.Space {
	s := v1.Space{Pressure: d.short}
	if d.err != nil {
		return s
	}
	spared := func(size, free int64) int64 { return max(0, free-size/100*int64(reserve)) }
	s.Size, s.Free = quantity(d.Size), quantity(spared(d.Size, d.Free))
	if d.Inodes > 0 {
		inodes, free := d.Inodes, spared(d.Inodes, d.FreeInodes)
		s.Inodes, s.FreeInodes = &inodes, &free
	}
	return s
}

// quantity rounds down to whole MiB: more precision would only make more writes.
func quantity(n int64) *resource.Quantity { return resource.NewQuantity(n>>20<<20, resource.BinarySI) }

// wholePercent rounds up: what is nearly full must not look as if there were room.
func wholePercent(p float64) *int32 {
	n := int32(min(100, max(0, p+0.999)))
	return &n
}

func volumesOf(class string, entries []state.Entry) int32 {
	n := int32(0)
	for _, e := range entries {
		if e.Class == class {
			n++
		}
	}
	return n
}

// settled keeps what was reported of a disk as long as it differs by no more than a hundredth of the disk.
func settled(before, now v1.Space) v1.Space {
	if before.Free != nil && now.Free != nil && near(before.Free.Value(), now.Free.Value(), now.Size.Value()) {
		now.Free = before.Free
	}
	if before.FreeInodes == nil || now.FreeInodes == nil || !near(*before.Inodes, *now.Inodes, *now.Inodes) {
		return now
	}
	now.Inodes = before.Inodes // some filesystems have as many as their free room allows
	if near(*before.FreeInodes, *now.FreeInodes, *now.Inodes) {
		now.FreeInodes = before.FreeInodes
	}
	return now
}

func near(a, b, of int64) bool { return max(a-b, b-a) <= of/100 }

// summary says in a line what people want to know of all classes: "default 40Gi of 100Gi free".
func summary(classes []v1.ClassCapacity) string {
	const longest = 1024
	parts := make([]string, 0, len(classes))
	for _, c := range classes {
		switch {
		case c.Reason != "":
			parts = append(parts, c.Name+" "+c.Reason)
		case len(c.Pressure) > 0:
			parts = append(parts, fmt.Sprintf("%s full (%s)", c.Name, joined(c.Pressure)))
		default:
			parts = append(parts, fmt.Sprintf("%s %s of %s free", c.Name, people(c.Free), people(c.Size)))
		}
	}
	text := strings.Join(parts, ", ")
	return text[:min(len(text), longest)]
}

func joined(resources []v1.Resource) string {
	texts := make([]string, 0, len(resources))
	for _, r := range resources {
		texts = append(texts, string(r))
	}
	return strings.Join(texts, ", ")
}

// people writes a size with the largest unit that leaves at least 10 of it.
func people(q *resource.Quantity) string {
	n, units := q.Value()>>20, []string{"Mi", "Gi", "Ti"}
	unit := 0
	for ; n >= 10<<10 && unit < len(units)-1; unit++ {
		n >>= 10
	}
	return fmt.Sprintf("%d%s", n, units[unit])
}

// urgent says whether a report differs in more than figures and texts, and so must not wait.
func urgent(before, now *v1.WorkspaceNodeStatus) bool {
	return !equality.Semantic.DeepEqual(essence(before), essence(now))
}

// essence is what decisions depend on: of people, of schedulers, and of this daemon after a restart.
func essence(s *v1.WorkspaceNodeStatus) []string {
	parts := []string{s.AreaID}
	if s.WorkingArea != nil {
		parts = append(parts, joined(s.WorkingArea.Pressure))
	}
	for _, c := range s.Classes {
		parts = append(parts, "class", c.Name, c.Driver, c.Reason, joined(c.Pressure))
	}
	for _, c := range s.Conditions {
		parts = append(parts, "condition", c.Type, string(c.Status), c.Reason)
	}
	return parts
}

// reasonOf returns what a report says of a condition, "True/Running" for example, "" if nothing.
func reasonOf(conditions []metav1.Condition, kind string) string {
	for _, c := range conditions {
		if c.Type == kind {
			return string(c.Status) + "/" + c.Reason
		}
	}
	return ""
}

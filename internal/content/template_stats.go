package content

import (
	"sync"
	"sync/atomic"
)

// templates is what a keeper knows of its templates beside what lies on the disk.
type templates struct {
	changing sync.Mutex // held while templates are made and removed

	cloned, missed, failed, made, evicted atomic.Int64

	kept    sync.Map // how many there are, by class
	reasons sync.Map // why a workspace did not begin with one, by UID
}

func (t *templates) count(class string, n int) { t.kept.Store(class, n) }

// TemplateStats says how templates were used since the start.
type TemplateStats struct {
	// Cloned workspaces began with a template. Missed ones had none; Failed counts templates that could not be used, or made, though
	// they should.
	Cloned, Missed, Failed int64
	// Made and Evicted templates.
	Made, Evicted int64
	// Kept templates by class, as far as they were counted.
	Kept map[string]int
}

// TemplateStats returns what happened since the start. It asks nobody.
func (k *Keeper) TemplateStats() TemplateStats {
	t := &k.templates
	s := TemplateStats{
		Cloned: t.cloned.Load(), Missed: t.missed.Load(), Failed: t.failed.Load(), Made: t.made.Load(), Evicted: t.evicted.Load(),
		Kept: map[string]int{},
	}
	t.kept.Range(func(class, n any) bool {
		s.Kept[class.(string)] = n.(int) //nolint:forcetypeassert // nothing else is stored
		return true
	})
	return s
}

// whyNotCloned returns why a workspace's content was not cloned, once; "" if nobody expected that.
func (t *templates) whyNotCloned(uid string) string {
	reason, _ := t.reasons.LoadAndDelete(uid)
	text, _ := reason.(string)
	return text
}

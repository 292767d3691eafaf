package controllers

import (
	"errors"
	"testing"

	. "github.com/onsi/gomega"
)

func TestUsable(t *testing.T) {
	g := NewWithT(t)
	var r WorkspaceReconciler
	g.Expect(r.Usable()).To(MatchError("the disks have not been looked at yet"))
	r.guard.set(disks{area: disk{err: errors.New("not mounted")}, classes: map[string]disk{
		"slow": {err: errors.New("no answer")}, "good": {}, "gone": {err: errors.New("no volume group")},
	}})
	g.Expect(r.Usable()).To(MatchError("working area: not mounted\nvolume class gone: no volume group\nvolume class slow: no answer"))
	r.guard.set(disks{classes: map[string]disk{"good": {}}})
	g.Expect(r.Usable()).To(Succeed())
}

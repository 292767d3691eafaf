//go:build vm

package volumes

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

// hangingLVM is a program that the daemon finds before LVM.
const hangingLVM = "/usr/local/sbin/lvm"

// LVM hangs: who needs it is told what it said, within the deadline, who is at work does not notice, and when LVM is back all goes on by
// itself.
func TestS7_OrdersThatHang(t *testing.T) {
	if !onLVM() {
		return // no other volumes need a program
	}
	w := newWorld(t)
	n := w.node("a")
	w.workspace("web", n, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	web := w.await("web", "Running")
	w.Expect(os.WriteFile(hangingLVM, []byte("#!/bin/sh\necho '  Device pv0 does not answer.' >&2\nexec sleep 1000\n"), 0o755)).To(Succeed())
	t.Cleanup(func() { _ = os.Remove(hangingLVM) })

	w.workspace("late", n, v1.Initializer{Empty: &v1.EmptyInitializer{}})
	late := w.await("late", v1.ReasonTimedOut)
	w.Expect(apimeta.FindStatusCondition(late.Status.Conditions, v1.ConditionVolumeReady)).To(And(
		HaveField("Reason", v1.ReasonTimedOut),
		HaveField("Message", And(ContainSubstring("lvm lvs --reportformat json"), ContainSubstring(": Device pv0 does not answer.")))))
	w.must(web, "echo hello > greeting")
	w.await("web", "Running")

	w.Expect(os.Remove(hangingLVM)).To(Succeed())
	w.await("late", "Running")
	for _, name := range []string{"web", "late"} {
		w.remove(name)
	}
	w.Eventually(n.volumes).Should(BeEmpty())
}

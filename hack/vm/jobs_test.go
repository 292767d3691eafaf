package vm

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestTestJobs(t *testing.T) {
	o := TestOptions{
		Options:  Options{Disks: []Disk{XFS, LVM}},
		Packages: []Package{{Path: "internal/a"}, {Path: "internal/b"}},
		Args:     []string{"-test.v"},
		Timeout:  time.Minute,
	}
	jobs := testJobs(o)
	names := make([]string, len(jobs))
	for i, job := range jobs {
		names[i] = job.Name
	}
	g := NewWithT(t)
	g.Expect(names).To(Equal([]string{"xfs/internal/a", "xfs/internal/b", "lvm/internal/a", "lvm/internal/b"}))
	g.Expect(jobs[3]).To(Equal(Job{
		Name: "lvm/internal/b",
		Disk: LVM,
		Dir:  "/vm/src/internal/b",
		Command: []string{
			"/vm/bin/internal/b/test", "-test.paniconexit0", "-test.timeout=1m0s",
			"-test.coverprofile=/run/vm/results/lvm/internal/b/cover.out", "-test.v",
		},
		Timeout: 90 * time.Second,
	}))
}

func TestWatchdog(t *testing.T) {
	g := NewWithT(t)
	g.Expect(silence([]Job{{Timeout: time.Second}, {Timeout: time.Minute}, {}})).To(Equal(3 * time.Minute))

	ctx, w := watch(t.Context(), time.Hour, time.Millisecond)
	g.Expect(ctx.Err()).NotTo(HaveOccurred())
	w.feed()
	g.Eventually(ctx.Done(), "30s").Should(BeClosed())
	g.Expect(context.Cause(ctx)).To(MatchError(errHangs))

	ctx, w = watch(t.Context(), time.Millisecond, time.Hour)
	g.Eventually(ctx.Done(), "30s").Should(BeClosed())
	g.Expect(context.Cause(ctx)).To(MatchError(errHangs))
	w.stop()
}

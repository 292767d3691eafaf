package progress

import (
	"bytes"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
)

func TestText(t *testing.T) {
	const third = 10 * time.Second
	tests := map[string]struct {
		step   Step
		passed time.Duration
		want   string
	}{
		"nothing yet":    {Step{}, 0, "0 files  0"},
		"no end":         {Step{Files: 1234, Bytes: 5 << 20}, 2 * time.Second, "1,234 files  5Mi  2.5Mi/s"},
		"at the start":   {Step{What: "backing up", FilesTotal: 5000, BytesTotal: 400 << 20}, 0, "backing up  [--------------------]   0%  0 of 5,000 files  0 of 400Mi"},
		"in the middle":  {Step{"backing up", 1000, 5000, 100 << 20, 400 << 20}, third, "backing up  [#####---------------]  25%  1,000 of 5,000 files  100Mi of 400Mi  10Mi/s  30s left"},
		"bytes only":     {Step{What: "verifying", Bytes: 20 << 20}, third, "verifying  20Mi  2Mi/s"},
		"files only":     {Step{Files: 3, FilesTotal: 4}, third, "[###############-----]  75%  3 of 4 files  0  0/s  3s left"},
		"all":            {Step{"", 5, 5, 400, 400}, third, "[####################] 100%  5 files  400  40/s"},
		"more than that": {Step{"", 6, 5, 500, 400}, third, "[####################] 100%  6 files  500  50/s"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(tt.step.text(tt.passed)).To(Equal(tt.want))
		})
	}
}

// A line is drawn over the one before, not too often, and never wraps.
func TestBar(t *testing.T) {
	g := NewWithT(t)
	var out bytes.Buffer
	now, width := time.Unix(0, 0), 80
	b := &Bar{out: &out, now: func() time.Time { return now }, width: func() int { return width }}
	b.Show(Step{Files: 1})
	now = now.Add(pause / 2)
	b.Show(Step{Files: 2})
	now = now.Add(pause / 2)
	width = 6
	b.Show(Step{Files: 3})
	b.End()
	b.End()
	g.Expect(out.String()).To(Equal("\r1 files  0\x1b[K" + "\r3 fil\x1b[K" + "\r\x1b[K"))
}

// What is waited for is drawn in place of a step that no other follows, and the step again when it is over.
func TestBarSaysWhatIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		var out bytes.Buffer
		var text atomic.Value
		text.Store("")
		b := &Bar{out: &out, now: time.Now, width: func() int { return 80 }}
		b.Watch(func() string { s, _ := text.Load().(string); return s })
		after := func(what string) string {
			text.Store(what)
			time.Sleep(lookPause)
			synctest.Wait()
			defer out.Reset()
			return out.String()
		}
		g.Expect(after("")).To(BeEmpty())
		g.Expect(after("waiting 1s")).To(Equal("\rwaiting 1s\x1b[K"))
		g.Expect(after("waiting 2s")).To(Equal("\rwaiting 2s\x1b[K"))
		time.Sleep(lookPause / 2)
		b.Show(Step{Files: 1})
		g.Expect(after("waiting 3s")).To(Equal("\r1 files  0\x1b[K"), "it goes on")
		g.Expect(after("waiting 4s:\n\x1b[2Jno")).To(Equal("\rwaiting 4s:  [2Jno\x1b[K"), "it stays in its line")
		g.Expect(after("")).To(Equal("\r1 files  0\x1b[K"))
		g.Expect(after("")).To(BeEmpty())
		b.End()
		g.Expect(after("waiting 5s")).To(Equal("\r\x1b[K"), "nothing is drawn after the end")
	})
}

func TestNoTerminalNoBar(t *testing.T) {
	g := NewWithT(t)
	f, err := os.Create(t.TempDir() + "/file")
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	b := On(f)
	g.Expect(b).To(BeNil())
	b.Watch(func() string { return "waiting" })
	b.Show(Step{})
	b.End()
	g.Expect(os.ReadFile(f.Name())).To(BeEmpty())
}

func TestNumbers(t *testing.T) {
	g := NewWithT(t)
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 12345: "12,345", 20_034: "20,034", 1_000_000: "1,000,000", 1234567: "1,234,567"} {
		g.Expect(Count(n)).To(Equal(want))
	}
	for n, want := range map[int64]string{
		0: "0", 1023: "1023", 1 << 10: "1Ki", 1536: "1.5Ki", 10240: "10Ki", 20 << 30: "20Gi", 3435973837: "3.2Gi", 1 << 60: "1Ei", 1<<63 - 1: "8Ei",
	} {
		g.Expect(Bytes(n)).To(Equal(want))
	}
}

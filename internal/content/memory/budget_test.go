package memory

import (
	"context"
	"fmt"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/fair"
)

func join(t *testing.T, b *Budget, size int64) *Share {
	t.Helper()
	s, err := b.Join(fair.With(t.Context(), t.Name(), fair.Urgent), size)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s
}

func TestABudgetThatIsNoneHasNoBound(t *testing.T) {
	g := NewWithT(t)
	var b *Budget
	s := join(t, b, 1<<40)
	shrink, ok := s.Grow(1 << 40)
	g.Expect(ok).To(BeTrue())
	g.Expect(s.Crowded()).To(BeFalse())
	buf := s.Get(10)
	g.Expect(buf).To(HaveLen(10))
	s.Put(buf)
	s.Forget(buf)
	s.Waste(1)
	shrink()
	s.Close()
	s.Close()
}

func TestABufferIsUsedAgain(t *testing.T) {
	g := NewWithT(t)
	b := New(800) // 700 for buffers
	s, other := join(t, b, 300), join(t, b, 300)
	buf := s.Get(100)
	buf[0] = 7
	s.Put(buf[:10]) // its length does not matter
	g.Expect(b.kept).To(BeEquivalentTo(100))
	g.Expect(&other.Get(90)[0]).To(BeIdenticalTo(&buf[0]), "a little smaller is all right")
	s.Put(buf) // it is another job's now
	g.Expect(b.used).To(BeEquivalentTo(100))
	s.Close()
	other.Close()
	g.Expect(b.used).To(BeZero())
	g.Expect(b.loose).To(BeEquivalentTo(100), "it was not given back: somebody may use it")
}

func TestABufferThatSomebodyMayUseIsNotUsedAgain(t *testing.T) {
	g := NewWithT(t)
	b := New(800)
	s := join(t, b, 300)
	buf := s.Get(100)
	s.Forget(buf)
	g.Expect(&s.Get(100)[0]).NotTo(BeIdenticalTo(&buf[0]))
	g.Expect(b.loose).To(BeEquivalentTo(100))
}

func TestIdleBuffersMakeRoomAndAreLetGoInTheEnd(t *testing.T) {
	g := NewWithT(t)
	b := New(800)
	s := join(t, b, 700)
	s.Put(s.Get(400))
	buf := s.Get(600) // 400 idle bytes and 600 are too much
	g.Expect([]int64{b.used, b.kept, b.loose}).To(Equal([]int64{600, 0, 0}), "what was dropped is collected")
	s.Put(buf)
	g.Expect([]int64{b.used, b.kept, b.loose}).To(Equal([]int64{0, 600, 0}))
	s.Waste(200)
	g.Expect(s.Get(600)).To(HaveLen(600))
	g.Expect(b.loose).To(BeZero(), "it was collected")
	s.Put(buf)
	s.Close()
	g.Expect([]int64{b.used, b.kept, b.loose}).To(Equal([]int64{0, 0, 600}))
}

// TestJobsNeverWaitForEachOther has many jobs hold what they joined for while they grow and shrink: each wait is for one that has all
// that it needs.
func TestJobsNeverWaitForEachOther(t *testing.T) {
	g := NewWithT(t)
	b := New(800)
	var mu sync.Mutex
	out, most := int64(0), int64(0)
	add := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		out += n
		most = max(most, out)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx := fair.With(t.Context(), fmt.Sprint(i%5), fair.Priority(i%2))
			for range 100 {
				s, err := b.Join(ctx, 250)
				if err != nil {
					t.Error(err)
					return
				}
				add(250)
				if shrink, ok := s.Grow(100); ok {
					add(100)
					add(-100)
					shrink()
				}
				add(-250)
				s.Close()
			}
		})
	}
	wg.Wait()
	g.Expect(most).To(BeNumerically("<=", 700))
	join(t, b, 700).Close() // nothing is left behind
}

func TestJoinEndsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	b := New(800)
	defer join(t, b, 600).Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := b.Join(ctx, 200)
		ended <- err
	}()
	g.Eventually(b.queue.Crowded).Should(BeTrue())
	cancel()
	var err error
	g.Eventually(ended).Should(Receive(&err))
	g.Expect(err).To(MatchError("wait for 200 of 700 bytes of memory: context canceled"))
}

// A job that takes long lets others go first, and has all it had before afterwards. Only as many do so at once as can all go on.
func TestAJobLetsOthersGoFirst(t *testing.T) {
	g := NewWithT(t)
	b := New(800) // 700 for buffers
	as := func(name string) context.Context { return fair.With(t.Context(), name, fair.Urgent) }
	waiting := func(name string) func() int { return func() int { return b.queue.Waiting(name) } }
	long, err := b.Join(as("long"), 300)
	g.Expect(err).NotTo(HaveOccurred())
	other, err := b.Join(as("other"), 300)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(long.Yield(as("long"), 200)).To(Succeed(), "nobody waits")

	joined := make(chan *Share)
	for _, name := range []string{"first", "second"} {
		go func() {
			s, err := b.Join(as(name), 300)
			g.Expect(err).NotTo(HaveOccurred())
			joined <- s
		}()
	}
	g.Eventually(waiting("first")).Should(Equal(1))
	g.Eventually(waiting("second")).Should(Equal(1))
	yielded := make(chan error)
	go func() { yielded <- long.Yield(as("long"), 200) }()
	next := <-joined
	g.Eventually(waiting("long")).Should(Equal(1))
	g.Expect(other.Yield(as("other"), 10)).To(Succeed(), "it keeps its memory: with 100 bytes that the other one holds, too much would be held by those who wait")
	g.Expect(waiting("other")()).To(BeZero())
	next.Close()
	next = <-joined
	g.Expect(yielded).NotTo(Receive(), "it has more than the second one had")
	next.Close()
	g.Expect(<-yielded).To(Succeed())
	g.Expect(b.rests).To(BeZero())
	long.Close()
	other.Close()
	all, err := b.Join(as("all"), 700)
	g.Expect(err).NotTo(HaveOccurred(), "everything was given back")
	all.Close()
}

// A job that ends while it lets others go first gives back what it had, once.
func TestAJobEndsWhileOthersGoFirst(t *testing.T) {
	g := NewWithT(t)
	b := New(800)
	ctx, cancel := context.WithCancel(fair.With(t.Context(), "long", fair.Urgent))
	defer cancel()
	long, err := b.Join(ctx, 600)
	g.Expect(err).NotTo(HaveOccurred())
	joined := make(chan *Share)
	go func() {
		s, err := b.Join(fair.With(t.Context(), "first", fair.Urgent), 600)
		g.Expect(err).NotTo(HaveOccurred())
		joined <- s
	}()
	g.Eventually(func() int { return b.queue.Waiting("first") }).Should(Equal(1))
	yielded := make(chan error)
	go func() { yielded <- long.Yield(ctx, 500) }()
	first := <-joined
	cancel()
	g.Expect(<-yielded).To(MatchError(context.Canceled))
	long.Close()
	first.Close()
	all, err := b.Join(t.Context(), 700)
	g.Expect(err).NotTo(HaveOccurred(), "neither too much nor too little")
	_, ok := all.Grow(1)
	g.Expect(ok).To(BeFalse())
	all.Close()
}

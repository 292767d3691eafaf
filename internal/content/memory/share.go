package memory

import (
	"context"
	"sync"
)

// Share is the part of a budget that one job has. Its methods may be called by all goroutines of the job.
type Share struct {
	budget *Budget
	ctx    context.Context //nolint:containedctx // it says whose job it is, as long as the job lasts

	mu       sync.Mutex
	closed   bool
	held     int64 // bytes that the job has joined and grown for
	releases []func()
	buffers  map[*byte][]byte // that the job has
}

// Grow asks for size bytes more than the job has joined for, and gets them only if nobody is kept waiting by that. The function
// that it returns gives them back; Close does so, too.
func (s *Share) Grow(size int64) (shrink func(), ok bool) {
	if s.budget == nil {
		return func() {}, true
	}
	release, ok := s.budget.queue.TryAcquire(s.ctx, size)
	if !ok {
		return nil, false
	}
	once := sync.OnceFunc(func() {
		release()
		s.grow(-size)
	})
	s.grow(size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases = append(s.releases, once)
	return once, true
}

func (s *Share) grow(size int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += size
	return s.held
}

// Yield lets others go first, if any wait: it gives back size bytes of what the job has joined for, and waits until the job may have them
// again. Who takes long, as with a store that crawls, so shares with all others, however many they are. The buffers of those bytes must
// have been put back; after an error the job must end.
func (s *Share) Yield(ctx context.Context, size int64) error {
	if !s.Crowded() {
		return nil
	}
	rest := s.grow(0) - size
	if !s.budget.rest(rest) {
		return nil
	}
	defer s.budget.goOn(rest)
	return s.budget.queue.Yield(ctx, size)
}

// Crowded says whether other jobs wait for memory: then whoever has grown should shrink as soon as he can.
func (s *Share) Crowded() bool { return s.budget != nil && s.budget.queue.Crowded() }

// Get returns a buffer of that length, with any content. It has to fit into what the job has joined and grown for.
func (s *Share) Get(size int) []byte {
	if s.budget == nil {
		return make([]byte, size)
	}
	buf := s.budget.take(size)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buffers == nil {
		s.buffers = map[*byte][]byte{}
	}
	s.buffers[&buf[0]] = buf
	return buf
}

// Put gives back a buffer that nobody uses any more.
func (s *Share) Put(buf []byte) { s.giveBack(buf, true) }

// Forget gives up a buffer that somebody may still write to or read: it is not used again.
func (s *Share) Forget(buf []byte) { s.giveBack(buf, false) }

// Waste says that size bytes which the job has joined or grown for, and that were no buffer, are left to the garbage collector.
func (s *Share) Waste(size int64) {
	if s.budget != nil {
		s.budget.waste(size)
	}
}

func (s *Share) giveBack(buf []byte, reusable bool) {
	if s.budget == nil || cap(buf) == 0 {
		return
	}
	at := &buf[:1][0]
	s.mu.Lock()
	whole, ok := s.buffers[at]
	delete(s.buffers, at)
	s.mu.Unlock()
	if ok {
		s.budget.give(whole, reusable)
	}
}

// Close gives everything back. Buffers that the job did not give back before are not used again. It may be called several times.
func (s *Share) Close() {
	s.mu.Lock()
	again := s.closed || s.budget == nil
	releases, buffers := s.releases, s.buffers
	s.closed, s.releases, s.buffers = true, nil, nil
	s.mu.Unlock()
	if again {
		return
	}
	for _, buf := range buffers {
		s.budget.give(buf, false)
	}
	for _, release := range releases {
		release()
	}
	s.budget.part()
}

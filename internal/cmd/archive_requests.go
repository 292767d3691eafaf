package cmd

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

// requests counts what a command asked of the store, by kind.
type requests struct {
	put, get, stat, list, del atomic.Int64

	waits store.Waits

	read atomic.Int64      // bytes
	show func(bytes int64) // is told of them, unless it is nil
}

func (r *requests) got(bytes int) {
	r.get.Add(1)
	if total := r.read.Add(int64(bytes)); r.show != nil {
		r.show(total)
	}
}

// follow shows on a terminal how much was read for something, until the function that it returns is called.
func (r *requests) follow(what string) (end func()) {
	d := r.display(what)
	show := d.show(0, 0)
	if show == nil {
		return d.end
	}
	var one sync.Mutex // several packs are read at once
	r.show = func(bytes int64) {
		one.Lock()
		defer one.Unlock()
		show(0, bytes)
	}
	return d.end
}

// display begins a line on a terminal, which also says when the store keeps a command waiting.
func (r *requests) display(what string) display {
	bar := progress.On(os.Stderr)
	bar.Watch(func() string {
		wait := r.waits.Of("")
		if wait == nil {
			return ""
		}
		return what + "  " + waitingFor(*wait)
	})
	return display{what, bar}
}

// waitingFor has the figures first: a line ends where the terminal does.
func waitingFor(w store.Wait) string {
	text := fmt.Sprintf("waiting %s (attempt %d) for %s", time.Since(w.Since).Round(time.Second), w.Attempt, w.Store)
	if w.Err != nil {
		text += ": " + w.Err.Error()
	}
	return text
}

// counts are requests as a report shows them.
type counts struct {
	Put    int64 `json:"put"`
	Get    int64 `json:"get"`
	Stat   int64 `json:"stat"`
	List   int64 `json:"list"`
	Delete int64 `json:"delete"`
}

func (r *requests) counts() counts {
	return counts{Put: r.put.Load(), Get: r.get.Load(), Stat: r.stat.Load(), List: r.list.Load(), Delete: r.del.Load()}
}

func (r *requests) counted(s store.Store) store.Store { return countedStore{s, r} }

// countedStore counts on the way.
type countedStore struct {
	store.Store
	requests *requests
}

func (s countedStore) Put(ctx context.Context, key string, data []byte) error {
	s.requests.put.Add(1)
	return s.Store.Put(ctx, key, data)
}

func (s countedStore) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	data, err := s.Store.Get(ctx, key, limit)
	s.requests.got(len(data))
	return data, err
}

func (s countedStore) Read(ctx context.Context, key string, offset int64, buf []byte) error {
	defer s.requests.got(len(buf))
	return s.Store.Read(ctx, key, offset, buf)
}

func (s countedStore) Stat(ctx context.Context, key string) (store.Object, error) {
	s.requests.stat.Add(1)
	return s.Store.Stat(ctx, key)
}

func (s countedStore) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	s.requests.list.Add(1)
	return s.Store.List(ctx, prefix, after, limit)
}

func (s countedStore) Delete(ctx context.Context, keys ...string) error {
	s.requests.del.Add(1)
	return s.Store.Delete(ctx, keys...)
}

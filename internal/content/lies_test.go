package content_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// liar is a store that lies once, in the nth answer of a kind.
type liar struct {
	store.Store
	lie lie

	mu   sync.Mutex
	at   int // 0: it is honest
	told int // answers of that kind
}

// lie is one kind of lie, about puts or about listings.
type lie struct {
	put  func(data []byte) []byte // what is stored in place of it; nil is nothing
	list func(objects []store.Object) []store.Object
}

// turn says whether this answer is the one to be a lie.
func (l *liar) turn(able bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if able {
		l.told++
	}
	return able && l.told == l.at
}

func (l *liar) Put(ctx context.Context, key string, data []byte) error {
	if !l.turn(l.lie.put != nil) {
		return l.Store.Put(ctx, key, data)
	}
	if data = l.lie.put(bytes.Clone(data)); data == nil {
		return nil
	}
	return l.Store.Put(ctx, key, data)
}

func (l *liar) List(ctx context.Context, prefix, after string, limit int) ([]store.Object, error) {
	objects, err := l.Store.List(ctx, prefix, after, limit)
	if l.turn(l.lie.list != nil) {
		objects = l.lie.list(objects)
	}
	return objects, err
}

// Whatever a store says and does not do, or shows as it was before: content goes only once it can be read from there, and the next attempt
// makes up for it.
func TestS1_NoLieOfTheStoreLosesContent(t *testing.T) {
	t.Parallel()
	for what, l := range map[string]lie{
		"stores nothing":     {put: func([]byte) []byte { return nil }},
		"stores another bit": {put: func(data []byte) []byte { data[len(data)/2] ^= 1; return data }},
		"stores a half":      {put: func(data []byte) []byte { return data[:len(data)/2] }},
		"lists nothing":      {list: func([]store.Object) []store.Object { return nil }},
		"lists late":         {list: func(objects []store.Object) []store.Object { return objects[min(1, len(objects)):] }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			at := 1
			for ; lieAt(t, l, at); at++ {
			}
			NewWithT(t).Expect(at).To(BeNumerically(">", 2))
		})
	}
}

// lieAt has a store lie while a workspace is released. It says whether it came to that.
func lieAt(t *testing.T, l lie, at int) bool {
	t.Helper()
	f := newFixture(t)
	a := f.node("node-a")
	a.fill(1)
	a.write("file", "one")
	a.backup(1)
	a.restart()
	a.write("file", "two")
	liar := &liar{Store: a.Store, lie: l, at: at}
	a.Store = liar
	name, err := a.Release(f.ctx, saveRequest(1), idle)
	liar.at = 0
	if err != nil {
		f.Expect(a.seen().Marker.Released).To(BeEmpty(), "lie %d", at)
		f.Expect(files(f, a.withdrawn(""))).To(Equal("file=two"), "lie %d: %v", at, err)
		name, err = a.Release(f.ctx, saveRequest(1), idle)
		f.Expect(err).NotTo(HaveOccurred(), "after lie %d", at)
	}
	f.Expect(a.remove(1)).To(BeEmpty())
	b := f.node("node-b")
	b.fill(2)
	f.Expect(b.files()).To(Equal("file=two"), "lie %d", at)
	f.Expect(b.journal().Backup.Name).To(Equal(name), "lie %d", at)
	return liar.told >= at
}

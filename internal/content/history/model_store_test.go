package history

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/store"
)

// tick is the step of the model's clock: half of what condemned packs wait.
const (
	tick      = 12 * time.Hour
	modelWait = 2 * tick
)

// request is one call of the store, or a question to the clock or to chance. It is all that the model sees of the code under test.
type request struct {
	op         string // put, get, stat, list, delete, now, boot, id
	key, after string
	data       string
	keys       []string
	limit      int
	asked      int // put: when its writer looked at its own clock last
}

// answer is what a request gets.
type answer struct {
	err     error
	objects []object
	number  int
}

// object is something in the store.
type object struct {
	key, data string
	modified  int // ticks
	sum       sum // of all that
}

// sum identifies something.
type sum [16]byte

func (s sum) and(other sum) sum {
	for i := range s {
		s[i] ^= other[i]
	}
	return s
}

func newObject(key, data string, modified int) object {
	full := sha256.Sum256(fmt.Appendf(nil, "%q %d %q", key, modified, data))
	return object{key, data, modified, sum(full[:16])}
}

func (o object) stored() store.Object {
	return store.Object{Key: o.key, Size: int64(len(o.data)), Modified: time.Unix(0, 0).UTC().Add(time.Duration(o.modified) * tick)}
}

// shelf is the content of the store. It is never changed in place.
type shelf struct {
	objects []object // by key
	sum     sum
}

func (s shelf) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.objects, key, func(o object, key string) int { return cmp.Compare(o.key, key) })
}

func (s shelf) with(o object) shelf {
	at, _ := s.find(o.key)
	return shelf{slices.Insert(slices.Clone(s.objects), at, o), s.sum.and(o.sum)}
}

func (s shelf) without(key string) shelf {
	at, found := s.find(key)
	if !found {
		return s
	}
	return shelf{slices.Concat(s.objects[:at], s.objects[at+1:]), s.sum.and(s.objects[at].sum)}
}

// apply does what a request asks for at a time.
func (s shelf) apply(r request, now int) (shelf, answer) {
	at, found := s.find(r.key)
	switch {
	case r.op == "put" && found:
		return s, answer{err: store.ErrExists}
	case r.op == "put":
		return s.with(newObject(r.key, r.data, now)), answer{}
	case r.op == "delete":
		for _, key := range r.keys {
			s = s.without(key)
		}
		return s, answer{}
	case r.op == "list":
		return s, answer{objects: s.list(r)}
	case r.op == "now", r.op == "boot":
		return s, answer{number: now}
	case !found:
		return s, answer{err: store.ErrNotFound}
	}
	return s, answer{objects: s.objects[at : at+1]}
}

func (s shelf) list(r request) []object {
	var out []object
	for _, o := range s.objects {
		if strings.HasPrefix(o.key, r.key) && o.key > r.after && len(out) < r.limit {
			out = append(out, o)
		}
	}
	return out
}

// replay is a store that answers from a script. The call after its end is caught: it is what the code does next.
type replay struct {
	script []answer
	at     int
	asked  int // the last answer of the clock
}

// caught carries the call after the end of a script.
type caught struct{ request }

func (r *replay) call(q request) answer {
	if r.at == len(r.script) {
		q.asked = r.asked
		panic(caught{q})
	}
	r.at++
	return r.script[r.at-1]
}

func (r *replay) Put(_ context.Context, key string, data []byte) error {
	return r.call(request{op: "put", key: key, data: string(data)}).err
}

func (r *replay) Get(_ context.Context, key string, _ int64) ([]byte, error) {
	a := r.call(request{op: "get", key: key})
	if a.err != nil {
		return nil, a.err
	}
	return []byte(a.objects[0].data), nil
}

func (r *replay) Read(context.Context, string, int64, []byte) error {
	return errors.New("the model reads no packs")
}

func (r *replay) Stat(_ context.Context, key string) (store.Object, error) {
	a := r.call(request{op: "stat", key: key})
	if a.err != nil {
		return store.Object{}, a.err
	}
	return a.objects[0].stored(), nil
}

func (r *replay) List(_ context.Context, prefix, after string, limit int) ([]store.Object, error) {
	a := r.call(request{op: "list", key: prefix, after: after, limit: limit})
	out := make([]store.Object, 0, len(a.objects))
	for _, o := range a.objects {
		out = append(out, o.stored())
	}
	return out, a.err
}

func (r *replay) Delete(_ context.Context, keys ...string) error {
	return r.call(request{op: "delete", keys: slices.Clone(keys)}).err
}

func (r *replay) Now(context.Context) (time.Time, error) {
	a := r.call(request{op: "now"})
	return object{modified: a.number}.stored().Modified, a.err
}

func (r *replay) String() string { return "model:" }

// boot is the writer's own clock.
func (r *replay) boot() time.Duration {
	r.asked = r.call(request{op: "boot"}).number
	return time.Duration(r.asked) * tick
}

// program is what somebody does with a domain: the code under test. The key that it returns is that of a commit or pin that it
// holds for good.
type program func(ctx context.Context, d *Domain) (key string, err error)

// thread is how far a program has come: it is a function of the answers that it got, so there is one for each sequence of them.
type thread struct {
	number  int
	program program
	before  *thread
	answer  answer
	after   map[sum]*thread
	next    *request // nil at the end
	key     string
	err     error
}

// run finds out what the program does next.
func (t *thread) run(ctx context.Context) {
	r := &replay{}
	for at := t; at.before != nil; at = at.before {
		r.script = append(r.script, at.answer)
	}
	slices.Reverse(r.script)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case caught:
			t.next = &p.request
		default:
			panic(p)
		}
	}()
	d := newDomain(r, "team")
	d.clock = r.boot
	d.apart = func(time.Time) time.Duration { return 0 } // else nothing would go
	d.newID = func() string { return fmt.Sprintf("id %d", r.call(request{op: "id"}).number) }
	t.key, t.err = t.program(ctx, d)
}

// threads makes them, each once.
type threads struct{ count int }

func (a *threads) begin(ctx context.Context, p program) *thread {
	return a.make(ctx, thread{program: p})
}

func (a *threads) make(ctx context.Context, t thread) *thread {
	t.number, t.after = a.count, map[sum]*thread{}
	a.count++
	t.run(ctx)
	return &t
}

// step goes on with an answer.
func (a *threads) step(ctx context.Context, t *thread, got answer) *thread {
	id := got.sum()
	next, known := t.after[id]
	if !known {
		next = a.make(ctx, thread{program: t.program, before: t, answer: got})
		t.after[id] = next
	}
	return next
}

// sum identifies an answer among those to the same request.
func (a answer) sum() sum {
	var id sum
	for _, o := range a.objects {
		id = id.and(o.sum)
	}
	binary.LittleEndian.PutUint64(id[:], binary.LittleEndian.Uint64(id[:])+uint64(a.number))
	if a.err != nil {
		id = id.and(newObject(a.err.Error(), "", 0).sum)
	}
	return id
}

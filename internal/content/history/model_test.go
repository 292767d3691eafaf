package history

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// scenario is who does what with a domain at the same time. All orders of their requests are tried, with the clock going on
// between any two.
type scenario struct {
	before []program   // one after the other, at time 0
	actors [][]program // each does its programs one after the other, whether they fail or not
	ticks  int         // how far the clock goes
	lost   int         // how many writes may get no reply and arrive at any later time, or never
	stable []string    // what begins so is written by nobody: reading it takes no time
	atOnce int         // so many actors, the last ones, do each program without anybody in between
	paused bool        // machines stand still for as long as they like, and their clocks with them
}

// world is a state of a scenario.
type world struct {
	now, ids, lost int
	shelf          shelf
	actors         []actor
	underway       []request // their writers have given them up
}

// actor is how far somebody has come.
type actor struct {
	step int     // the program
	at   *thread // nil at the end
	held string  // what the actor was told to be safe
}

// explorer walks through all states of a scenario.
type explorer struct {
	scenario
	g        Gomega
	ctx      context.Context //nolint:containedctx // it lives as long as the test
	threads  threads
	roots    [][]*thread
	seen     map[sum]struct{}
	settled  map[sum]struct{}
	needed   map[string][]Pack // by the bytes of a commit or pin
	path     []string
	sweeping *thread
}

func newExplorer(t *testing.T, s scenario) (*explorer, world) {
	t.Helper()
	e := &explorer{
		scenario: s, g: NewWithT(t), ctx: t.Context(),
		seen: map[sum]struct{}{}, settled: map[sum]struct{}{}, needed: map[string][]Pack{},
	}
	e.sweeping = e.threads.begin(e.ctx, collecting)
	w := world{lost: s.lost}
	for _, p := range s.before {
		e.g.Expect(e.finish(&w, e.threads.begin(e.ctx, p)).err).NotTo(HaveOccurred())
	}
	w.now = s.ticksBefore()
	for _, programs := range s.actors {
		var roots []*thread
		for _, p := range programs {
			roots = append(roots, e.threads.begin(e.ctx, p))
		}
		e.roots = append(e.roots, roots)
		w.actors = append(w.actors, actor{at: e.alone(&w, roots[0])})
	}
	return e, w
}

// ticksBefore makes what was there before old enough to be condemned.
func (s scenario) ticksBefore() int { return int(modelWait / tick) }

// finish lets a program run alone.
func (e *explorer) finish(w *world, t *thread) *thread {
	for t = e.alone(w, t); t.next != nil; {
		t = e.alone(w, e.threads.step(e.ctx, t, w.answer(*t.next)))
	}
	return t
}

func (w *world) answer(r request) (a answer) {
	w.shelf, a = w.shelf.apply(r, w.now)
	return a
}

func (e *explorer) explore(w world) {
	id := w.sum()
	if _, known := e.seen[id]; known {
		return
	}
	e.seen[id] = struct{}{}
	e.settle(&w, e.whole(&w))
	for i, a := range w.actors {
		if a.at != nil && i >= len(w.actors)-e.atOnce {
			e.visit(w, fmt.Sprintf("%d: all of program %d", i, a.step), func(next *world) { e.proceed(next, i, e.finish(next, a.at)) })
			continue
		}
		if a.at != nil {
			e.visit(w, fmt.Sprintf("%d: %s", i, a.at.next), func(next *world) { e.advance(next, i, next.answer(*a.at.next)) })
		}
		if a.at != nil && w.lost > 0 && writes(a.at.next) {
			e.visit(w, fmt.Sprintf("%d: %s: no reply", i, a.at.next), func(next *world) {
				next.lost--
				next.underway = append(slices.Clip(next.underway), *a.at.next)
				e.advance(next, i, answer{err: errLost})
			})
		}
	}
	for i, r := range w.underway {
		e.visit(w, fmt.Sprintf("arrives: %s", &r), func(next *world) {
			next.answer(r)
			next.underway = slices.Concat(next.underway[:i], next.underway[i+1:])
		})
	}
	if w.now < e.ticks+e.ticksBefore() && e.mayTick(&w) {
		e.visit(w, "the clock goes on", e.tick)
	}
}

var errLost = errors.New("no reply")

func (e *explorer) visit(w world, what string, do func(*world)) {
	w.actors = slices.Clone(w.actors)
	e.path = append(e.path, what)
	do(&w)
	e.explore(w)
	e.path = e.path[:len(e.path)-1]
}

// advance gives an actor an answer.
func (e *explorer) advance(w *world, i int, got answer) {
	e.proceed(w, i, e.alone(w, e.threads.step(e.ctx, w.actors[i].at, got)))
}

// proceed goes on to the next program at the end of one.
func (e *explorer) proceed(w *world, i int, t *thread) {
	a := &w.actors[i]
	for a.at = t; a.at != nil && a.at.next == nil; {
		if a.at.err == nil && a.at.key != "" {
			a.held = a.at.key
		}
		a.step++
		a.at = nil
		if a.step < len(e.roots[i]) {
			a.at = e.alone(w, e.roots[i][a.step])
		}
	}
}

// alone answers what asks nobody else: the actor's own clock, and chance.
func (e *explorer) alone(w *world, t *thread) *thread {
	for t.next != nil {
		got := answer{number: w.now}
		switch op := t.next.op; {
		case op == "id":
			w.ids++
			got.number = w.ids
		case op == "boot" && e.paused:
			got.number = 0
		case op == "boot":
		case op != "now" && !writes(t.next) && slices.ContainsFunc(e.stable, func(prefix string) bool { return strings.HasPrefix(t.next.key, prefix) }):
			got = w.answer(*t.next)
		default:
			return t
		}
		t = e.threads.step(e.ctx, t, got)
	}
	return t
}

func writes(r *request) bool { return r.op == "put" || r.op == "delete" }

// refers says whether a request writes what needs packs.
func (r *request) refers() bool {
	return r.op == "put" && (strings.HasPrefix(r.key, "d/team/w/") || strings.HasPrefix(r.key, "d/team/s/"))
}

// mayTick: a request lives shorter than half of the time that condemned packs wait, unless machines stand still.
func (e *explorer) mayTick(w *world) bool {
	return e.paused || !slices.ContainsFunc(w.actors, func(a actor) bool { return a.at != nil && a.at.next.refers() && a.at.next.asked < w.now })
}

func (e *explorer) tick(w *world) {
	if !e.paused {
		w.underway = slices.DeleteFunc(slices.Clone(w.underway), func(r request) bool { return r.refers() && r.asked < w.now })
	}
	w.now++
}

// whole makes sure that nothing lacks a pack that must not, and returns the keys of those that are needed.
func (e *explorer) whole(w *world) map[string]bool {
	held := map[string]bool{}
	for _, a := range w.actors {
		held[a.held] = true
	}
	used := map[string]bool{}
	for _, o := range w.shelf.objects {
		for _, p := range e.packs(o) {
			key := "d/team/p/" + p.ID[:2] + "/" + p.ID
			used[key] = true
			if _, there := w.shelf.find(key); !there && (held[o.key] || !e.paused) {
				e.g.Expect(o.key).To(BeEmpty(), "it lacks pack %s after:\n%s", p.ID, strings.Join(e.path, "\n"))
			}
		}
	}
	return used
}

// packs returns what a commit or pin needs.
func (e *explorer) packs(o object) []Pack {
	if !(&request{op: "put", key: o.key}).refers() {
		return nil
	}
	packs, known := e.needed[o.data]
	if !known {
		var c struct {
			Packs  []Pack
			Commit struct{ Packs []Pack }
		}
		e.g.Expect(decode(o.key, []byte(o.data), &c)).To(Succeed())
		packs = append(c.Packs, c.Commit.Packs...)
		e.needed[o.data] = packs
	}
	return packs
}

// settle makes sure that what nobody needs goes if everybody stops here, and nothing else.
func (e *explorer) settle(w *world, used map[string]bool) {
	if _, known := e.settled[w.shelf.sum]; known {
		return
	}
	e.settled[w.shelf.sum] = struct{}{}
	later := *w
	for range 4 {
		later.now += int(modelWait / tick)
		e.g.Expect(e.finish(&later, e.sweeping).err).NotTo(HaveOccurred())
	}
	for _, o := range later.shelf.objects {
		if strings.HasPrefix(o.key, "d/team/p/") && !used[o.key] {
			e.g.Expect(o.key).To(BeEmpty(), "it stays for ever after:\n%s", strings.Join(e.path, "\n"))
		}
	}
}

func (w *world) sum() sum {
	h := sha256.New()
	_, _ = h.Write(w.shelf.sum[:])
	numbers := []int{w.now, w.lost, w.ids}
	for _, a := range w.actors {
		number := -1
		if a.at != nil {
			number = a.at.number
		}
		numbers = append(numbers, a.step, number)
		_, _ = h.Write([]byte(a.held))
	}
	for _, n := range numbers {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	}
	for _, r := range w.underway {
		_, _ = h.Write([]byte(r.String()))
	}
	return sum(h.Sum(nil)[:16])
}

func (r *request) String() string {
	return strings.TrimSpace(r.op + " " + r.key + strings.Join(r.keys, " "))
}

// collecting is one run of the collector.
func collecting(ctx context.Context, d *Domain) (string, error) {
	_, err := d.Collect(ctx, CollectOptions{Wait: modelWait, Delete: true})
	return "", err
}

// modelPack is a pack with a readable name.
func modelPack(name string, fresh bool) Pack {
	return Pack{ID: fmt.Sprintf("%032x", name), Size: int64(len(name)), New: fresh}
}

// modelCommit is backup <name> of a workspace.
func modelCommit(workspace, name string, parent Name, packs ...Pack) Commit {
	n, err := ParseName(name)
	if err != nil {
		panic(err)
	}
	c := Commit{ID: workspace + name, Domain: "team", Workspace: workspace, Name: n, Created: time.Unix(1, 0).UTC(), Packs: packs}
	if !parent.IsZero() {
		c.Parent = &Ref{Name: parent}
	}
	return c
}

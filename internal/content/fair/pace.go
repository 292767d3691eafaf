package fair

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"
)

// The bytes that one transfer is granted at a time, before it is the next one's turn.
const (
	minStep = 16 << 10
	maxStep = 1 << 20
)

// Pace lets a number of bytes pass in a second, a small part of each transfer in turn, so that a small one is not kept waiting by
// large ones. A nil Pace lets everything pass.
type Pace struct {
	turns *Queue
	rate  *rate.Limiter
	step  int
}

// NewPace returns a pace of so many bytes a second; 0 is no limit. what names them in errors.
func NewPace(what string, perSecond int64) *Pace {
	if perSecond <= 0 {
		return nil
	}
	step := int(min(max(perSecond/20, minStep), maxStep))
	return &Pace{turns: NewQueue(what, 1), rate: rate.NewLimiter(rate.Limit(perSecond), step), step: step}
}

// Wait returns when n more bytes may pass.
func (p *Pace) Wait(ctx context.Context, n int) error {
	if p == nil || n == 0 {
		return nil
	}
	j := jobOf(ctx)
	for turn := p.turns.enter(j, 1); turn != nil; {
		if err := p.turns.await(ctx, turn); err != nil {
			return err
		}
		step := min(n, p.step)
		err := p.rate.WaitN(ctx, step)
		n -= step
		turn = p.pass(j, n > 0 && err == nil)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", p.turns.what, err)
		}
	}
	return nil
}

// pass ends a turn. Whoever wants another one takes his place before the next turn begins, or others would have several.
func (p *Pace) pass(j job, more bool) (turn *waiter) {
	if more {
		turn = p.turns.enter(j, 1)
	}
	p.turns.release(j, 1)
	return turn
}

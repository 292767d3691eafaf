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
	if p == nil {
		return nil
	}
	for n > 0 {
		step := min(n, p.step)
		if err := p.pass(ctx, step); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

func (p *Pace) pass(ctx context.Context, n int) error {
	release, err := p.turns.Acquire(ctx, 1)
	if err != nil {
		return err
	}
	defer release()
	if err := p.rate.WaitN(ctx, n); err != nil {
		return fmt.Errorf("wait for %s: %w", p.turns.what, err)
	}
	return nil
}

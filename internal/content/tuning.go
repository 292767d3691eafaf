package content

import "time"

// Tuning is what of a Keeper may change while it works.
type Tuning struct {
	// StrayRetention and RetryMax are those of the [Keeper].
	StrayRetention, RetryMax time.Duration
}

// Tune changes the Keeper's settings for what begins from now on.
func (k *Keeper) Tune(t Tuning) { k.tuning.Store(&t) }

// Tuned returns the settings that hold.
func (k *Keeper) Tuned() Tuning {
	if t := k.tuning.Load(); t != nil {
		return *t
	}
	return Tuning{k.StrayRetention, k.RetryMax}
}

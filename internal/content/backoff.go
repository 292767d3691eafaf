package content

import (
	"hash/fnv"
	"time"
)

// Backoff returns the pause after a number of failures in a row: one second, doubled each time up to limit, with a jitter of
// a tenth that is fixed for the seed, so that workspaces which failed together do not come back together.
func Backoff(failures int, limit time.Duration, seed string) time.Duration {
	pause := time.Second
	for range failures - 1 {
		if pause >= limit {
			break
		}
		pause *= 2
	}
	return Jitter(min(pause, limit), seed)
}

// Jitter moves d by up to a tenth to either side, always by the same amount for one seed.
func Jitter(d time.Duration, seed string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	return d + time.Duration(int64(d)/10_000*(int64(h.Sum32()%2001)-1000))
}

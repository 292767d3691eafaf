package volumetest

import "math/rand/v2"

// Some returns what a test has the time for: all fault points in a build with the tag "long", else one of them.
func Some(points []string) []string {
	if everyPoint || len(points) == 0 {
		return points
	}
	return []string{points[rand.IntN(len(points))]} //nolint:gosec // it is no secret
}

package volumetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// Some returns what a test has the time for: all fault points on a way in a build with the tag "long", else one of them, which is printed
// also if the test passes: it is another one each time.
func Some(t *testing.T, way string, points []string) []string {
	t.Helper()
	if everyPoint || len(points) == 0 {
		return points
	}
	point := points[rand.IntN(len(points))] //nolint:gosec // it is no secret
	fmt.Fprintf(os.Stdout, "%s: %s: of %d points %s\n", t.Name(), way, len(points), point)
	return []string{point}
}

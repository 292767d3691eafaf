// Package fleet tests the cluster controller beside real daemons. There is one lease in a cluster, so its tests run one after the other.
package fleet

import (
	"os"
	"testing"

	"wsdaemon.dev/ws-daemon/test/harness"
)

// env is shared by all tests of the package.
var env *harness.Env

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &env)) }

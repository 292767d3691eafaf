package pods

import (
	"os"
	"testing"

	"wsdaemon.dev/ws-daemon/internal/csi/csitest"
	"wsdaemon.dev/ws-daemon/test/harness"
)

var env *harness.Env

func TestMain(m *testing.M) {
	os.Exit(csitest.Main(func() int { return harness.Main(m, &env) }))
}

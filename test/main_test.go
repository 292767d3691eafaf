// Package test holds the tests that cross packages: real daemons, a real API server, real file trees.
package test

import (
	"os"
	"testing"

	"wsdaemon.dev/ws-daemon/test/harness"
)

// env is shared by all tests of the package.
var env *harness.Env

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &env)) }

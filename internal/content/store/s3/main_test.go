package s3_test

import (
	"os"
	"testing"

	"wsdaemon.dev/ws-daemon/hack/stores"
)

// server is what all tests of the package talk to, each below a prefix of its own.
var server *stores.Server

func TestMain(m *testing.M) { os.Exit(stores.RunTests(m, &server, stores.StartS3)) }

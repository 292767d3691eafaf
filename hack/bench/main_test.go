package main

import (
	"os"
	"testing"

	"wsdaemon.dev/ws-daemon/internal/content/initializer"
)

func TestMain(m *testing.M) {
	initializer.Enter()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case helperName:
			os.Exit(helper(os.Args[2:]))
		case clonerName:
			os.Exit(cloner(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

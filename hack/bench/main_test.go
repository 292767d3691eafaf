package main

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == helperName {
		os.Exit(helper(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// Command trivial shows that a program runs: it prints its arguments, writes them to a file, and ends with exit code 3.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	text := strings.Join(os.Args[1:], " ") + " in " + os.Getenv("TMPDIR") + "\n"
	if _, err := os.Stdout.WriteString(text); err != nil {
		os.Exit(1)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("WS_DAEMON_VM_RESULTS"), "said"), []byte(text), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(3)
}

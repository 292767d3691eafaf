// Package sandboxtest is for tests of what runs in a sandbox.
package sandboxtest

import (
	"os"
	"path/filepath"
)

// ProcessesIn lists the processes whose working directory is dir, in whatever namespace, as links below /proc.
func ProcessesIn(dir string) []string {
	want, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	var found []string
	for _, link := range links {
		if cwd, err := os.Stat(link); err == nil && os.SameFile(cwd, want) {
			found = append(found, link)
		}
	}
	return found
}

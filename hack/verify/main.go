// Command verify checks the texts of the repository: links between documents, words that must not be in it, and the length
// of functions and files.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := repositoryFiles()
	if err != nil {
		return err
	}
	return errors.Join(checkLinks(files), checkWords(files), checkLengths(files))
}

// repositoryFiles gives the files that git keeps, or would: what is ignored was built here.
func repositoryFiles() ([]string, error) {
	//nolint:noctx // A short command of a short program.
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(files)
	// A file that was removed but not committed is still listed.
	return slices.DeleteFunc(slices.Compact(files), func(file string) bool {
		info, err := os.Stat(file)
		return err != nil || !info.Mode().IsRegular()
	}), nil
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// rule is something that must not be in the repository.
type rule struct {
	pattern *regexp.Regexp
	applies func(file string, text []byte) bool
	reason  string
}

func rules() []rule {
	everywhere := func(string, []byte) bool { return true }
	goFiles := func(file string, _ []byte) bool { return strings.HasSuffix(file, ".go") }
	realTimeTests := func(file string, text []byte) bool {
		return strings.HasSuffix(file, "_test.go") && !bytes.Contains(text, []byte(`"testing/synctest"`))
	}
	return []rule{
		// The first letters are in brackets so that this file does not contain what it looks for.
		{regexp.MustCompile(`\b([T]ODO|[F]IXME)\b`), everywhere, "finish it, or leave it out"},
		{regexp.MustCompile(`\b[t]b?\.Skip(f|Now)?\(`), goFiles, "a skipped test proves nothing: make it run everywhere"},
		{regexp.MustCompile(`[t]ime\.Sleep\(`), realTimeTests, "wait for what you expect, not for time to pass"},
		{regexp.MustCompile(`(^|[\s"'=(])/(home|root|Users)/[a-z]`), everywhere, "this path is on one machine only"},
		{regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY`), everywhere, "keys do not belong into a repository"},
		{regexp.MustCompile(`^(<{7}|>{7})( |$)`), everywhere, "a merge was not finished"},
	}
}

// checkWords looks for what must not be in the repository.
func checkWords(files []string) error {
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) >= 0 || path.Base(file) == "go.sum" {
			continue
		}
		errs = append(errs, checkFile(file, text))
	}
	return errors.Join(errs...)
}

func checkFile(file string, text []byte) error {
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	all := slices.DeleteFunc(rules(), func(r rule) bool { return !r.applies(file, text) })
	for number := 1; lines.Scan(); number++ {
		for _, r := range all {
			if found := r.pattern.FindString(lines.Text()); found != "" {
				errs = append(errs, fmt.Errorf("%s:%d: %q: %s", file, number, strings.TrimSpace(found), r.reason))
			}
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}

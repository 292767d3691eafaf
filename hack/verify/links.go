package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```")
	notInName = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// checkLinks makes sure that links between documents lead somewhere. Links to other sites are not followed.
func checkLinks(files []string) error {
	var errs []error
	for _, file := range files {
		if filepath.Ext(file) != ".md" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, match := range link.FindAllStringSubmatch(codeBlock.ReplaceAllString(string(text), ""), -1) {
			if err := checkLink(file, match[1]); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func checkLink(file, target string) error {
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Errorf("%s: bad link %s: %w", file, target, err)
	}
	if u.Scheme != "" {
		return nil
	}
	path := file
	if u.Path != "" {
		path = filepath.Join(filepath.Dir(file), u.Path)
	}
	text, err := readTarget(path)
	if err != nil {
		return fmt.Errorf("%s: link to nothing: %s", file, target)
	}
	if u.Fragment != "" && !anchors(text)[u.Fragment] {
		return fmt.Errorf("%s: link to a heading that is not there: %s", file, target)
	}
	return nil
}

// readTarget gives the text of a document, nothing for a directory.
func readTarget(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return "", err
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// anchors gives the names of a document's headings, as the usual renderers make them.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, match := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(notInName.ReplaceAllString(match[1], ""))
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

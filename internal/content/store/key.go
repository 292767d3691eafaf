package store

import (
	"fmt"
	"strings"
)

// The limits of a key, in bytes. They are those of S3 and of Linux file systems.
const (
	maxKey       = 1024
	maxComponent = 255
)

// CheckKey refuses keys that are not portable between stores or could leave a directory: a key consists of components of
// printable ASCII characters, joined by slashes.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("key of %d bytes: at most %d are allowed", len(key), maxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if err := checkComponent(part); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
	}
	return nil
}

func checkComponent(part string) error {
	switch {
	case part == "", part == ".", part == "..":
		return fmt.Errorf("component %q is not allowed", part)
	case reserved(part):
		return fmt.Errorf("component %q is reserved for temporary files", part)
	case len(part) > maxComponent:
		return fmt.Errorf("a component of %d bytes: at most %d are allowed", len(part), maxComponent)
	case printable(part) < len(part):
		return fmt.Errorf("component %q: only printable ASCII characters are allowed", part)
	}
	return nil
}

// printable returns the length of the part of a text that a key may consist of.
func printable(text string) int {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return i
		}
	}
	return len(text)
}

// reserved names are those of the file system driver; every store refuses them so that stores can be copied.
func reserved(part string) bool {
	return part == tempDir || strings.HasPrefix(part, tempPrefix)
}

// CheckPrefix refuses prefixes of a [Store.List] whose directories no key can have.
func CheckPrefix(prefix string) error {
	_, _, err := splitPrefix(prefix)
	return err
}

// splitPrefix cuts a prefix into the directory it fixes, with its slash, and the beginning of a name in there.
func splitPrefix(prefix string) (dir, name string, err error) {
	at := strings.LastIndexByte(prefix, '/') + 1
	dir, name = prefix[:at], prefix[at:]
	if dir == "" {
		return dir, name, nil
	}
	return dir, name, CheckKey(strings.TrimSuffix(dir, "/"))
}

// Package repository finds the repository that a development tool or a test was started in.
package repository

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// modulePath tells the repository's own go.mod from others.
const modulePath = "wsdaemon.dev/ws-daemon"

// Root gives the directory of this module, looking upwards from the working directory.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("get working directory: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+modulePath+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the repository of %s: change into it", start, modulePath)
		}
	}
}

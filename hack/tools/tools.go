// Package tools builds the programs that the modules beside it pin: each once, into the cache of the user.
package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"wsdaemon.dev/ws-daemon/hack/repository"
)

// Tool is a program of one of the modules.
type Tool struct {
	// Name of the program.
	Name string
	// In is the directory of the module below hack/tools.
	In string
	// Module that the program's version is the one of, and its main package.
	Module, Package string
	// Tags of the build, if there are any.
	Tags string
}

// Build returns the path of the program, which takes some minutes the first time. Progress goes to log. It needs the repository as working
// directory, or one below it.
func (t Tool) Build(ctx context.Context, log io.Writer) (string, error) {
	root, err := repository.Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "hack", "tools", t.In)
	version, err := t.version(module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	path := filepath.Join(cache, "ws-daemon", "tools", t.Name+"-"+version)
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "tool.sh"), module, t.Package, path)
	cmd.Stderr = log
	if t.Tags != "" {
		cmd.Env = append(cmd.Environ(), "GOFLAGS=-tags="+t.Tags)
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", t.Name, err)
	}
	return path, nil
}

// version reads the go.mod of the module.
func (t Tool) version(module string) (string, error) {
	text, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read version of %s: %w", t.Name, err)
	}
	match := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(t.Module) + ` (v\S+)`).FindSubmatch(text)
	if match == nil {
		return "", fmt.Errorf("read version of %s: %s/go.mod does not require %s", t.Name, module, t.Module)
	}
	return string(match[1]), nil
}

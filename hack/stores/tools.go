package stores

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

// A tool is a program of the module hack/tools/stores.
type tool struct {
	name, module, pkg string
}

func versitygw() tool {
	return tool{"versitygw", "github.com/versity/versitygw", "github.com/versity/versitygw/cmd/versitygw"}
}

func fakeGCS() tool {
	return tool{"fake-gcs-server", "github.com/fsouza/fake-gcs-server", "github.com/fsouza/fake-gcs-server"}
}

// Build makes sure that the programs are there, which takes some minutes the first time. Progress goes to log.
func Build(ctx context.Context, log io.Writer) error {
	for _, t := range []tool{versitygw(), fakeGCS()} {
		if _, err := t.build(ctx, log); err != nil {
			return err
		}
	}
	return nil
}

// build returns the path of the program, and needs the repository as working directory, or one below it.
func (t tool) build(ctx context.Context, log io.Writer) (string, error) {
	root, err := repository.Root()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "hack", "tools", "stores")
	version, err := t.version(module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	path := filepath.Join(cache, "ws-daemon", "tools", t.name+"-"+version)
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack", "tool.sh"), module, t.pkg, path)
	cmd.Stderr = log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", t.name, err)
	}
	return path, nil
}

// version reads the go.mod of the tools module.
func (t tool) version(module string) (string, error) {
	text, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read version of %s: %w", t.name, err)
	}
	match := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(t.module) + ` (v\S+)`).FindSubmatch(text)
	if match == nil {
		return "", fmt.Errorf("read version of %s: %s/go.mod does not require %s", t.name, module, t.module)
	}
	return string(match[1]), nil
}

// Command reference generates what documents say of the configuration, the metrics and the commands: the schema, the tables of
// docs/operations.md between their marks, docs/cli.md and docs/service.md. The comments of the types and of the service, and the
// commands, are where it comes from.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"wsdaemon.dev/ws-daemon/internal/cmd"
	"wsdaemon.dev/ws-daemon/internal/config"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run generates everything in a repository.
func run(root string) error {
	comments, err := readComments(filepath.Join(root, "internal", "config"))
	if err != nil {
		return err
	}
	keys, err := reader{comments}.members("", reflect.ValueOf(config.Default()), false)
	if err != nil {
		return err
	}
	text, err := schemaOf(keys)
	if err != nil {
		return err
	}
	service, err := serviceReference(filepath.Join(root, "api", "daemon", "v1"))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, "internal", "config", "schema.json"), text, 0o644),
		os.WriteFile(filepath.Join(root, "config", "schema.json"), text, 0o644),
		os.WriteFile(filepath.Join(root, "docs", "cli.md"), []byte(cliReference(cmd.Commands())), 0o644),
		os.WriteFile(filepath.Join(root, "docs", "service.md"), []byte(service), 0o644),
		insert(filepath.Join(root, "docs", "operations.md"), map[string]string{
			"configuration": configTable(keys),
			"metrics":       metricsTable(),
		}),
	)
}

// insert writes texts into a document, between the marks of their names.
func insert(file string, texts map[string]string) error {
	document, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for name, text := range texts {
		if document, err = between(document, name, text); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return os.WriteFile(file, document, 0o644)
}

func between(document []byte, name, text string) ([]byte, error) {
	begin, end := []byte("<!-- "+name+": generated, begin -->\n"), []byte("<!-- "+name+": generated, end -->\n")
	before, rest, found := bytes.Cut(document, begin)
	_, after, ended := bytes.Cut(rest, end)
	if !found || !ended {
		return nil, fmt.Errorf("there are no marks of %s", name)
	}
	return bytes.Join([][]byte{before, begin, []byte("\n" + text + "\n"), end, after}, nil), nil
}

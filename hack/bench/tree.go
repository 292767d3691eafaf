package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed package.json
var packages []byte

//go:embed tree.sh
var recipe []byte

// buildTree makes the tree of packages and a git repository, or finds the one that was made before. Its name is a hash of
// the recipe, so that another recipe makes another tree.
func buildTree(ctx context.Context, cache string) (string, error) {
	sum := sha256.Sum256(append(append([]byte{}, packages...), recipe...))
	tree := filepath.Join(cache, "tree-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	fmt.Fprintf(os.Stderr, "building the tree in %s (some minutes, once)\n", tree)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	web := filepath.Join(temp, "tree", "web")
	if err := os.MkdirAll(web, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(web, "package.json"), packages, 0o644); err != nil {
		return "", err
	}
	build := shell(string(recipe))
	build.dir = filepath.Join(temp, "tree")
	if _, err := execute(ctx, build); err != nil {
		return "", fmt.Errorf("build the tree: %w", err)
	}
	return tree, os.Rename(filepath.Join(temp, "tree"), tree)
}

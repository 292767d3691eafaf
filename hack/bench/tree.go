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
	say("building the tree in %s (some minutes, once)", tree)
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
	if _, _, err := execute(ctx, "cd \"$BENCH_TREE\"\n"+string(recipe), "BENCH_TREE="+filepath.Join(temp, "tree")); err != nil {
		return "", fmt.Errorf("build the tree: %w", err)
	}
	return tree, os.Rename(filepath.Join(temp, "tree"), tree)
}

package nodes

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ShellImage is an image of busybox alone, which sleeps unless it is told otherwise. Pods are held together by a container of it, too.
const ShellImage = "localhost/shell:1"

// WriteShellImage writes the archive of [ShellImage].
func WriteShellImage(ctx context.Context, archive string) error {
	layer, err := shellLayer(ctx)
	if err != nil {
		return fmt.Errorf("make image %s: %w", ShellImage, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/bin/sleep", "2147483647"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{ShellImage}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var image bytes.Buffer
	w := tar.NewWriter(&image)
	for _, file := range []entry{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer}} {
		if err := file.write(w, 0o644); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(archive, image.Bytes(), 0o644)
}

type entry struct {
	name string
	data []byte
}

func (e entry) write(w *tar.Writer, mode int64) error {
	if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: mode, Size: int64(len(e.data))}); err != nil {
		return err
	}
	_, err := w.Write(e.data)
	return err
}

// shellLayer is a file system with busybox under all its names.
func shellLayer(ctx context.Context) ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: install Debian's package busybox-static", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	names, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the programs of busybox: %w", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"bin/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := (entry{"bin/busybox", program}).write(w, 0o755); err != nil {
		return nil, err
	}
	for name := range strings.FieldsSeq(string(names)) {
		if name == "busybox" {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return layer.Bytes(), w.Close()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

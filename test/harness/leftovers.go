package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Leftovers waits until nothing of any workspace but these is left on the node, nor of any work: no volume, trash, journal
// entry, temporary file (the store's included) or child process. What stays fails the test.
func (n *Node) Leftovers(but ...*Workspace) {
	n.w.t.Helper()
	n.w.Eventually("nothing is left on node "+n.Name, func() error {
		left := n.leftovers()
		for _, ws := range but {
			left = slices.DeleteFunc(left, func(path string) bool { return strings.TrimSuffix(filepath.Base(path), ".json") == ws.UID })
		}
		if len(left) > 0 {
			return fmt.Errorf("there is %s", strings.Join(left, ", "))
		}
		return nil
	})
}

func (n *Node) leftovers() []string {
	volumes, trash := filepath.Join(n.Area, "volumes", "default"), filepath.Join(n.Area, "volumes", "default", ".trash")
	return slices.Concat(below(volumes, n.Volumes()), below(trash, names(trash)), below(filepath.Join(n.Area, "journal"), n.Journal()),
		below(filepath.Join(n.Area, "index"), names(filepath.Join(n.Area, "index"))), temporary(n.Area), temporary(n.w.Store), n.children())
}

func below(dir string, names []string) []string {
	paths := make([]string, 0, len(names))
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// temporary finds files that were being written.
func temporary(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(filepath.Base(path), ".tmp-") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// children names the processes that the daemon has started and that still run.
func (n *Node) children() []string {
	if !n.Alive() {
		return nil
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.current().Pid()))
	var found []string
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(text)) {
			found = append(found, "process "+pid)
		}
	}
	return found
}

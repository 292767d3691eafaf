package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestRun(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	source := `package a

// Reasons of Ready.
const (
	// ReasonRunning means that it
	// runs, or walks.
	ReasonRunning = "Running"
	// ReasonTyped is in its type's section.
	ReasonTyped Typed = "Typed"
	// Annotation has the prefix.
	Annotation = prefix + "paused"
)

const prefix = "x/"
`
	g.Expect(os.WriteFile(filepath.Join(dir, "a.go"), []byte(source), 0o600)).To(Succeed())
	var out strings.Builder

	g.Expect(run(&out, dir)).To(Succeed())

	g.Expect(out.String()).To(Equal(`
## Conditions, reasons and annotations

Reasons of Ready.

| Value | Meaning |
|---|---|
| ` + "`Running`" + ` | means that it runs, or walks. |
| ` + "`…paused`" + ` | has the prefix. |

## The daemon's service

What the daemon of a node tells and does over gRPC: [call by call](service.md).
`))
}

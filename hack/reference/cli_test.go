package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/spf13/cobra"
)

func TestCLIReference(t *testing.T) {
	g := NewWithT(t)
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool", Short: "Does things"}
	root.PersistentFlags().String("store", "file:///x", "the store's `URL`")
	sub := &cobra.Command{Use: "do NAME", Short: "Does <one> thing", Example: "  tool do a\n  tool do b", Run: run}
	sub.Flags().BoolP("all", "a", false, "all of\nthem")
	sub.Flags().Int("limit", 3, "at most so `many`")
	sub.Flags().String("node", "this-machine", "the `name` of the node, its own by default")
	secret := &cobra.Command{Use: "secret", Hidden: true, Run: run}
	root.AddCommand(sub, secret)
	g.Expect(strings.TrimPrefix(cliReference(root), cliBegin)).To(Equal(`
## tool

Does things.

| Command | What it does |
|---|---|
| [` + "`tool do`" + `](#tool-do) | Does \<one> thing |

| Flag | Default | Meaning |
|---|---|---|
| ` + "`--store URL` | `file:///x`" + ` | the store's URL |

## tool do

Does \<one> thing.

` + "```sh" + `
tool do NAME [flags]
` + "```" + `

For example:

` + "```sh" + `
tool do a
tool do b
` + "```" + `

| Flag | Default | Meaning |
|---|---|---|
| ` + "`-a, --all`" + ` |  | all of them |
| ` + "`--limit many` | `3`" + ` | at most so many |
| ` + "`--node name`" + ` |  | the name of the node, its own by default |

And the flags of [` + "`tool`" + `](#tool).
`))
}

func TestServiceReference(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	write := func(name, text string) {
		g.Expect(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)).To(Succeed())
	}
	write("service.proto", `// Calls.
//
// And errors.
syntax = "proto3";

package p;

// Service serves.
service Service {
  // Get gets | takes
  // one.
  rpc Get(GetRequest) returns (stream Thing);
}
`)
	write("workspace.proto", `// Things.
syntax = "proto3";

// Thing is one.
message Thing {
  // Parts of it.
  repeated Thing parts = 1;
  // When it began.
  google.protobuf.Timestamp begin = 2;
}

// Kind of things.
enum Kind {
  // Not given.
  KIND_UNSPECIFIED = 0;
  // A large one.
  KIND_LARGE = 1;
}
`)
	text, err := serviceReference(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.TrimPrefix(text, serviceBegin)).To(Equal(`
Calls.

And errors.

## Service

Service serves.

| Method | Takes | Answers | What it does |
|---|---|---|---|
| ` + "`Get`" + ` | [GetRequest](#getrequest) | stream [Thing](#thing) | Get gets \| takes one. |

Things.

## Thing

Thing is one.

| Field | Type | Meaning |
|---|---|---|
| ` + "`parts`" + ` | list of [Thing](#thing) | Parts of it. |
| ` + "`begin`" + ` | Timestamp | When it began. |

## Kind

Kind of things.

| Value | Meaning |
|---|---|
| ` + "`KIND_LARGE`" + ` | A large one. |
`))
	write("workspace.proto", "// Things.\nsyntax = \"proto3\";\n// Thing is one.\nmessage Thing {\n  string name = 1;\n}\n")
	_, err = serviceReference(dir)
	g.Expect(err).To(MatchError("workspace.proto: string name = 1; has no comment: nobody could know what it is for"))
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func TestTextsGoBetweenTheirMarks(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "doc.md")
	write := func(text string) { g.Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed()) }
	write("# A\n<!-- b: generated, begin -->\nold\n<!-- b: generated, end -->\nafter\n")
	for range 2 { // again, it is the same
		g.Expect(insert(file, map[string]string{"b": "new\n"})).To(Succeed())
		got, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(got)).To(Equal("# A\n<!-- b: generated, begin -->\n\nnew\n\n<!-- b: generated, end -->\nafter\n"))
	}
	g.Expect(insert(file, map[string]string{"c": "new\n"})).To(MatchError(file + ": there are no marks of c"))
}

type group1 struct {
	// Written is a text.
	Written string `json:"written" schema:"required,enum=a|b"`
	Silent  int    `json:"silent"`
}

func TestAKeyWithoutACommentIsRefused(t *testing.T) {
	_, err := reader{comments{"group1.Written": "Written is a text."}}.members("", reflect.ValueOf(group1{}), false)
	NewWithT(t).Expect(err).To(MatchError("group1.Silent has no comment: nobody could know what it is for"))
}

func TestRow(t *testing.T) {
	g := NewWithT(t)
	said := comments{"group1.Written": "Written is one | or the other <thing>.", "group1.Silent": "Silent numbers."}
	keys, err := reader{said}.members("top", reflect.ValueOf(group1{Silent: 3}), true)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(configTable(keys)).To(Equal("| Key | Value | Default | Live | Meaning |\n|---|---|---|---|---|\n" +
		"| `top.written` | `a`, `b` | must be set | yes | One \\| or the other \\<thing>. |\n" +
		"| `top.silent` | number | `3` | yes | Silent numbers. |\n"))
}

// accepts says what the published schema thinks of a document, by a validator of its draft, which looks at the schema itself, too.
func accepts(t *testing.T, document string) error {
	t.Helper()
	g := NewWithT(t)
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	g.Expect(err).NotTo(HaveOccurred())
	compiler := jsonschema.NewCompiler()
	g.Expect(compiler.AddResource("schema.json", text)).To(Succeed())
	schema, err := compiler.Compile("schema.json")
	g.Expect(err).NotTo(HaveOccurred())
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	g.Expect(err).NotTo(HaveOccurred())
	return schema.Validate(value)
}

// What editors are told is what the daemon does, as far as a schema can tell.
func TestSchemaAgreesWithTheParser(t *testing.T) {
	example, err := json.Marshal(config.Example())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	const rest = `"storage": {"kind": "filesystem", "filesystem": {"path": "/s"}}, "volumes": {"classes": {"a": {"driver": "directory"}}}`
	for name, tt := range map[string]struct {
		text string
		want bool
	}{
		"the example":       {string(example), true},
		"the smallest":      {`{"content": {"workingArea": "/x"}, ` + rest + `}`, true},
		"with its schema":   {`{"$schema": "https://example.com", "content": {"workingArea": "/x"}, ` + rest + `}`, true},
		"no content":        {`{` + rest + `}`, false},
		"unknown key":       {`{"content": {"workingArea": "/x"}, "x": 1, ` + rest + `}`, false},
		"unknown inner key": {`{"content": {"workingArea": "/x", "y": 1}, ` + rest + `}`, false},
		"a day":             {`{"content": {"workingArea": "/x", "orphanGrace": "1d12h"}, ` + rest + `}`, true},
		"a week":            {`{"content": {"workingArea": "/x", "orphanGrace": "1w"}, ` + rest + `}`, false},
		"a number":          {`{"content": {"workingArea": "/x", "orphanGrace": 5}, ` + rest + `}`, false},
		"a size":            {`{"content": {"workingArea": "/x"}, "limits": {"store": {"memory": "1.5Gi"}}, ` + rest + `}`, true},
		"a size in minutes": {`{"content": {"workingArea": "/x"}, "limits": {"store": {"memory": "10m"}}, ` + rest + `}`, false},
		"too little":        {`{"content": {"workingArea": "/x"}, "limits": {"backup": 0}, ` + rest + `}`, false},
		"a fraction":        {`{"content": {"workingArea": "/x"}, "limits": {"backup": 1.5}, ` + rest + `}`, false},
		"another level":     {`{"content": {"workingArea": "/x"}, "log": {"level": "loud"}, ` + rest + `}`, false},
		"another scheme":    {`{"content": {"workingArea": "/x", "git": {"allowedSchemes": ["ext"]}}, ` + rest + `}`, false},
		"another driver":    {`{"content": {"workingArea": "/x"}, "storage": {"kind": "filesystem", "filesystem": {"path": "/s"}}, "volumes": {"classes": {"a": {"driver": "zfs"}}}}`, false},
		"a class of a path": {`{"content": {"workingArea": "/x"}, "storage": {"kind": "filesystem", "filesystem": {"path": "/s"}}, "volumes": {"classes": {"../a": {"driver": "directory"}}}}`, false},
		"a text for a bool": {`{"content": {"workingArea": "/x", "adoptCluster": "yes"}, ` + rest + `}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := config.Parse([]byte(tt.text))
			g.Expect(err == nil).To(Equal(tt.want), "the parser says %v", err)
			found := accepts(t, tt.text)
			g.Expect(found == nil).To(Equal(tt.want), "the schema says %v", found)
		})
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const serviceBegin = `# The daemon's service, call by call

What the daemon of a node tells and does over gRPC, as ` + "[`api/daemon/v1`](../api/daemon/v1)" + ` defines it; generated from there by ` + "`make reference`" + `.
[Operations](operations.md#serve-other-programs) tells where it is served and who may call it, [the command line](cli.md#ws-daemon-client) has a command
for each call. On the socket there are the standard health service and reflection as well.
`

// serviceReference documents the service as Markdown. Of what a name stands for, the files say it in the comment above it.
func serviceReference(dir string) (string, error) {
	var out strings.Builder
	out.WriteString(serviceBegin)
	for _, name := range []string{"service.proto", "workspace.proto"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		d := definitions{out: &out}
		for line := range strings.SplitSeq(string(text), "\n") {
			if err := d.read(strings.TrimSpace(line)); err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return out.String(), nil
}

// definitions reads a file line by line.
type definitions struct {
	out     *strings.Builder
	comment []string
	within  bool // a definition
	begun   bool // the file's own comment is over
}

var (
	blockLine  = regexp.MustCompile(`^(service|message|enum) (\w+) \{`)
	methodLine = regexp.MustCompile(`^rpc (\w+)\((\w+)\) returns \((stream )?(\w+)\);`)
	fieldLine  = regexp.MustCompile(`^((?:repeated )?[\w.]+) (\w+) = \d+;`)
	valueLine  = regexp.MustCompile(`^(\w+) = (\d+);`)
)

func (d *definitions) read(line string) error {
	if said, ok := strings.CutPrefix(line, "//"); ok {
		d.comment = append(d.comment, strings.TrimSpace(said))
		return nil
	}
	said := d.comment
	d.comment = nil
	switch m := blockLine.FindStringSubmatch(line); {
	case m != nil:
		d.within = true
		return d.begin(m[1], m[2], said)
	case line == "}":
		d.within = false
	case d.within && line != "":
		return d.member(line, strings.Join(said, " "))
	case strings.HasPrefix(line, "syntax") && !d.begun:
		d.begun = true
		d.out.WriteString("\n" + paragraphs(said) + "\n")
	}
	return nil
}

func (d *definitions) begin(kind, name string, said []string) error {
	if len(said) == 0 {
		return fmt.Errorf("%s has no comment", name)
	}
	heads := map[string]string{
		"service": "| Method | Takes | Answers | What it does |\n|---|---|---|---|\n",
		"message": "| Field | Type | Meaning |\n|---|---|---|\n",
		"enum":    "| Value | Meaning |\n|---|---|\n",
	}
	fmt.Fprintf(d.out, "\n## %s\n\n%s\n\n%s", name, paragraphs(said), heads[kind])
	return nil
}

func (d *definitions) member(line, said string) error {
	if said == "" {
		return fmt.Errorf("%s has no comment: nobody could know what it is for", line)
	}
	if m := methodLine.FindStringSubmatch(line); m != nil {
		fmt.Fprintf(d.out, "| `%s` | %s | %s%s | %s |\n", m[1], linked(m[2]), m[3], linked(m[4]), cell(said))
		return nil
	}
	if m := valueLine.FindStringSubmatch(line); m != nil {
		if m[2] != "0" {
			fmt.Fprintf(d.out, "| `%s` | %s |\n", m[1], cell(said))
		}
		return nil
	}
	if m := fieldLine.FindStringSubmatch(line); m != nil {
		fmt.Fprintf(d.out, "| `%s` | %s | %s |\n", m[2], linked(m[1]), cell(said))
		return nil
	}
	return fmt.Errorf("%s was not understood", line)
}

// linked is a type, with a link to where it is defined if that is here.
func linked(kind string) string {
	repeated, name := "", kind
	if rest, ok := strings.CutPrefix(kind, "repeated "); ok {
		repeated, name = "list of ", rest
	}
	if name[0] < 'A' || name[0] > 'Z' {
		return repeated + name[strings.LastIndex(name, ".")+1:]
	}
	return fmt.Sprintf("%s[%s](#%s)", repeated, name, strings.ToLower(name))
}

// paragraphs of a comment, which empty lines keep apart.
func paragraphs(said []string) string {
	return strings.ReplaceAll(strings.Join(said, "\n"), "<", `\<`)
}

package client

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Format is how something is printed.
type Format string

// The formats.
const (
	Table Format = ""
	Wide  Format = "wide"
	Name  Format = "name"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// ParseFormat reads the value of -o, which may be one of those allowed.
func ParseFormat(text string, allowed []string) (Format, error) {
	if text != "" && !slices.Contains(allowed, text) {
		return "", Usage("-o %s: must be one of %s", text, strings.Join(allowed, ", "))
	}
	return Format(text), nil
}

// column is one of a table.
type column[T any] struct {
	heading string
	of      func(T) string
	wide    bool // only with -o wide
}

// kind is how something is listed.
type kind[T proto.Message] struct {
	columns []column[T]
	name    func(T) string
}

// Printer prints things of one kind, one after the other, or all at once.
type Printer[T proto.Message] struct {
	kind   kind[T]
	format Format
	out    io.Writer

	widths []int // of the columns, so far
}

func (k kind[T]) printer(out io.Writer, format Format) *Printer[T] {
	p := &Printer[T]{kind: k, format: format, out: out}
	if format != Wide {
		p.kind.columns = slices.DeleteFunc(slices.Clone(k.columns), func(c column[T]) bool { return c.wide })
	}
	return p
}

// List prints all of a list.
func (p *Printer[T]) List(items []T) error {
	switch p.format {
	case JSON, YAML:
		all := make([]any, 0, len(items))
		for _, item := range items {
			all = append(all, plain(item))
		}
		return p.encode(map[string]any{"items": all})
	default:
		return p.rows(items, true)
	}
}

// One prints a single thing.
func (p *Printer[T]) One(item T) error {
	if p.format == JSON || p.format == YAML {
		return p.encode(plain(item))
	}
	return p.rows([]T{item}, true)
}

// More prints others below those that were printed before. As JSON, each has a line of its own.
func (p *Printer[T]) More(items ...T) error {
	if p.format != JSON {
		return p.rows(items, p.widths == nil)
	}
	for _, item := range items {
		if err := Line(p.out, item); err != nil {
			return err
		}
	}
	return nil
}

// Line writes a message as JSON on one line.
func Line(out io.Writer, m proto.Message) error { return json.NewEncoder(out).Encode(plain(m)) }

func (p *Printer[T]) encode(value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err == nil && p.format == YAML {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, strings.TrimSuffix(string(text), "\n"))
	return err
}

// rows prints names, or a table. Columns get wider when they must, and never narrower again.
func (p *Printer[T]) rows(items []T, headings bool) error {
	if p.format == Name {
		for _, item := range items {
			if _, err := fmt.Fprintln(p.out, Printable(p.kind.name(item))); err != nil {
				return err
			}
		}
		return nil
	}
	lines := make([][]string, 0, len(items)+1)
	if headings {
		line := make([]string, 0, len(p.kind.columns))
		for _, c := range p.kind.columns {
			line = append(line, c.heading)
		}
		lines = append(lines, line)
	}
	for _, item := range items {
		line := make([]string, 0, len(p.kind.columns))
		for _, c := range p.kind.columns {
			line = append(line, cell(c.of(item)))
		}
		lines = append(lines, line)
	}
	_, err := io.WriteString(p.out, p.layOut(lines))
	return err
}

// cell is never empty, so that the fields of a line can be counted.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return Printable(text)
}

// layOut puts cells below each other, three spaces apart.
func (p *Printer[T]) layOut(lines [][]string) string {
	if p.widths == nil {
		p.widths = make([]int, len(p.kind.columns))
	}
	for _, line := range lines {
		for i, text := range line {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(text))
		}
	}
	const gap = 3
	var out strings.Builder
	for _, line := range lines {
		for i, text := range line {
			out.WriteString(text)
			if i < len(line)-1 {
				out.WriteString(strings.Repeat(" ", p.widths[i]+gap-utf8.RuneCountInString(text)))
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// Printable returns a text that does nothing to a terminal: whatever is no character to be seen is escaped.
func Printable(text string) string {
	harmless := func(c rune) bool { return c != utf8.RuneError && strconv.IsPrint(c) }
	if !strings.ContainsFunc(text, func(c rune) bool { return !harmless(c) }) {
		return text
	}
	var out strings.Builder
	for _, c := range text {
		if harmless(c) {
			out.WriteRune(c)
		} else {
			out.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
	}
	return out.String()
}

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"wsdaemon.dev/ws-daemon/internal/cmd"
)

// configTable is the reference of all keys, as Markdown.
func configTable(keys []key) string {
	var out strings.Builder
	out.WriteString("| Key | Value | Default | Live | Meaning |\n|---|---|---|---|---|\n")
	rows(&out, keys)
	return out.String()
}

func rows(out *strings.Builder, keys []key) {
	for _, k := range keys {
		if k.name == "$schema" {
			continue
		}
		if len(k.members) > 0 {
			rows(out, k.members)
			continue
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", k.path, kindOf(k), fallbackOf(k), yes(k.live), cell(meaning(k)))
	}
}

// meaning is a sentence that leaves the name out where the row says enough.
func meaning(k key) string {
	said := k.comment
	for _, verb := range []string{" is ", " are "} {
		if rest, ok := strings.CutPrefix(said, k.name+verb); ok {
			said = rest
		}
	}
	first, size := utf8.DecodeRuneInString(said)
	return string(unicode.ToUpper(first)) + said[size:]
}

func kindOf(k key) string {
	switch {
	case len(k.enum) > 0 && k.kind == "array":
		return "list of `" + strings.Join(k.enum, "`, `") + "`"
	case len(k.enum) > 0:
		return "`" + strings.Join(k.enum, "`, `") + "`"
	case k.format != nil:
		return k.format.name
	case k.kind == "integer" && k.least > 0:
		return fmt.Sprintf("number from %d", k.least)
	case k.kind == "integer":
		return "number"
	case k.kind == "array":
		return "list of texts"
	case k.kind == "boolean":
		return "`true`, `false`"
	default:
		return "text"
	}
}

func fallbackOf(k key) string {
	if k.fallback == nil {
		if k.required {
			return "must be set"
		}
		return ""
	}
	text, err := json.Marshal(k.fallback)
	if err != nil {
		return ""
	}
	return "`" + string(text) + "`"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// metricsTable is the list of all metrics, as Markdown.
func metricsTable() string {
	var out strings.Builder
	out.WriteString("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n")
	for _, d := range cmd.MetricDefinitions() {
		labels := ""
		if len(d.Labels) > 0 {
			labels = "`" + strings.Join(d.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, labels, cell(d.Help))
	}
	return out.String()
}

func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "<", `\<`)
}

package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// MistakeError is one thing that is wrong in a configuration.
type MistakeError struct {
	// Key is the path of the key, "limits.store.memory" for example; empty if it is the file as a whole.
	Key string
	// Line where it stands, from 1; if it does not stand in the file, where what it is missing in begins.
	Line int
	// Reason tells what is wrong and what would be right.
	Reason string

	// with is the key that it contradicts: if only that one is in the file, its line counts.
	with string
}

// Error names key and reason.
func (m *MistakeError) Error() string {
	if m.Key == "" {
		return m.Reason
	}
	return m.Key + ": " + m.Reason
}

// wrong is a mistake of which the line is not known yet.
func wrong(key, format string, args ...any) error {
	return &MistakeError{Key: key, Reason: fmt.Sprintf(format, args...)}
}

// contradicts is a mistake of two keys that cannot be as they are together.
func contradicts(key, with, format string, args ...any) error {
	return &MistakeError{Key: key, Reason: fmt.Sprintf(format, args...), with: with}
}

// InvalidError is a configuration that is refused.
type InvalidError struct {
	// File is its name; empty if it does not come from one.
	File string
	// Mistakes by line.
	Mistakes []MistakeError
}

// Error has a line for each mistake: file, line, key and reason. Many mistakes usually have one cause.
func (e *InvalidError) Error() string {
	const most = 20
	lines := make([]string, 0, most+1)
	for _, m := range e.Mistakes[:min(most, len(e.Mistakes))] {
		place := fmt.Sprintf("line %d", m.Line)
		if e.File != "" {
			place = fmt.Sprintf("%s:%d", e.File, m.Line)
		}
		lines = append(lines, place+": "+m.Error())
	}
	if more := len(e.Mistakes) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// mistakes collects those in a tree of joined errors.
func mistakes(err error) []*MistakeError {
	if err == nil {
		return nil
	}
	tree, ok := err.(interface{ Unwrap() []error })
	if !ok {
		m, known := errors.AsType[*MistakeError](err)
		if !known {
			m = mistakeOf(err.Error())
		}
		return []*MistakeError{m}
	}
	var all []*MistakeError
	for _, one := range tree.Unwrap() {
		all = append(all, mistakes(one)...)
	}
	return all
}

var keyText = regexp.MustCompile(`(?s)^([a-z][A-Za-z0-9]*(?:\.[A-Za-z0-9-]+)+): (.+)$`)

// mistakeOf takes a text for a mistake: it may begin with its key.
func mistakeOf(text string) *MistakeError {
	if parts := keyText.FindStringSubmatch(text); parts != nil {
		return &MistakeError{Key: parts[1], Reason: parts[2]}
	}
	return &MistakeError{Reason: text}
}

// invalid gives mistakes their lines and puts them in order.
func invalid(found []*MistakeError, lines places) error {
	all := make([]MistakeError, 0, len(found))
	for _, m := range found {
		if m.Line == 0 {
			m.Line = lines.of(m.Key, m.with)
		}
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b MistakeError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Reason, b.Reason))
	})
	return &InvalidError{Mistakes: slices.Compact(all)}
}

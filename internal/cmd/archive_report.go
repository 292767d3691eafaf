package cmd

import (
	"encoding/json"
	"fmt"
	"io"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
	"wsdaemon.dev/ws-daemon/internal/progress"
)

// incompleteCode is the exit code of what succeeded but for some files, which are named.
const incompleteCode = 3

// codeError ends the process with a code of its own.
type codeError struct {
	code    int
	message string
}

func (e *codeError) Error() string { return e.message }

// ExitCode is the code.
func (e *codeError) ExitCode() int { return e.code }

// summary is what create and restore report: one object on standard output with --json.
type summary struct {
	Backup      string  `json:"backup"`
	Unchanged   bool    `json:"unchanged,omitempty"`
	Files       int64   `json:"files"`
	Directories int64   `json:"directories"`
	Bytes       int64   `json:"bytes"`
	BytesRead   int64   `json:"bytesRead"`
	BytesStored int64   `json:"bytesStored"`
	Requests    counts  `json:"requests"`
	Seconds     float64 `json:"seconds"`
	// Incomplete names files that could not be read or restored, at most 100 of IncompleteCount.
	Incomplete      []string `json:"incomplete,omitempty"`
	IncompleteCount int64    `json:"incompleteCount,omitempty"`
	// Changed names files that never held still while they were read, Skipped sockets and devices; at most 100 of each.
	Changed []string `json:"changed,omitempty"`
	Skipped []string `json:"skipped,omitempty"`
	// Altered names what the file system cannot hold as it was, at most 100 of AlteredCount.
	Altered      []string `json:"altered,omitempty"`
	AlteredCount int64    `json:"alteredCount,omitempty"`
}

// print writes the summary, and returns an error with a code of its own if files are missing.
func (s summary) print(out, errOut io.Writer, asJSON bool, verb string) error {
	if asJSON {
		if err := json.NewEncoder(out).Encode(s); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%s backup %s: %d files, %d directories, %d bytes, %d read, %d stored, in %.1f s\n",
			verb, s.Backup, s.Files, s.Directories, s.Bytes, s.BytesRead, s.BytesStored, s.Seconds)
	}
	name(errOut, "changed while it was read", s.Changed)
	name(errOut, "a socket or device, not kept", s.Skipped)
	name(errOut, "not as it was", s.Altered)
	more(errOut, "not as it was", s.AlteredCount, s.Altered)
	name(errOut, "not read", s.Incomplete)
	more(errOut, "not read", s.IncompleteCount, s.Incomplete)
	if s.IncompleteCount == 0 {
		return nil
	}
	return &codeError{incompleteCode, fmt.Sprintf("backup %s is incomplete: %d files could not be read", s.Backup, s.IncompleteCount)}
}

func name(out io.Writer, what string, paths []string) {
	for _, path := range paths {
		fmt.Fprintf(out, "%s: %s\n", what, path)
	}
}

func more(out io.Writer, what string, count int64, named []string) {
	if n := count - int64(len(named)); n > 0 {
		fmt.Fprintf(out, "%s: %d more\n", what, n)
	}
}

func named(problems []archive.Problem) []string {
	names := make([]string, 0, len(problems))
	for _, p := range problems {
		names = append(names, p.Path+": "+p.Error)
	}
	return names
}

// display is where a command shows how far it is.
type display struct {
	what string
	bar  *progress.Bar // nil where standard error is no terminal
}

// show returns a function that shows how far the work is, nil where nobody sees it. A total of 0 is not known.
func (d display) show(files, bytes int64) archive.Progress {
	if d.bar == nil {
		return nil
	}
	return func(doneFiles, doneBytes int64) {
		d.bar.Show(progress.Step{What: d.what, Files: doneFiles, FilesTotal: files, Bytes: doneBytes, BytesTotal: bytes})
	}
}

// end empties the line; it may be called again.
func (d display) end() { d.bar.End() }

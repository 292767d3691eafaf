package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxFile is the most that is read of a file, in bytes. A configuration has a few hundred lines.
const maxFile = 1 << 20

// Load reads and validates a file. Errors name the file, and an [*InvalidError] line and key of every mistake.
func Load(file string) (Config, error) {
	data, err := read(file)
	if err != nil {
		return Config{}, err
	}
	return parseFile(file, data)
}

func parseFile(file string, data []byte) (Config, error) {
	c, err := Parse(data)
	if refused, ok := errors.AsType[*InvalidError](err); ok {
		refused.File = file
	}
	return c, err
}

// read returns what is in a file. Whatever is no file is not waited for.
func read(file string) ([]byte, error) {
	f, err := os.OpenFile(filepath.Clean(file), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("configuration %s does not exist: `ws-daemon config example` prints one", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("configuration %s is not a file", file)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("configuration %s has more than %d bytes: is it the right file?", file, maxFile)
	}
	return data, nil
}

// Parse reads and validates a configuration. Its errors are an [*InvalidError] with all mistakes.
func Parse(data []byte) (Config, error) {
	if m := misfit(data); m != nil {
		return Config{}, &InvalidError{Mistakes: []MistakeError{*m}}
	}
	p := &parser{data: data, lines: places{}}
	p.document()
	if len(p.found) > 0 {
		return Config{}, invalid(p.found, p.lines)
	}
	c := Default()
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, invalid(mistakes(err), p.lines)
	}
	if err := c.validate(); err != nil {
		return Config{}, invalid(mistakes(err), p.lines)
	}
	return c, nil
}

// misfit says why something is not one JSON object, before anything in it is looked at; nil if it is.
func misfit(data []byte) *MistakeError {
	at := func(offset int64, format string, args ...any) *MistakeError {
		return &MistakeError{Line: lineOf(data, offset), Reason: fmt.Sprintf(format, args...)}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return at(0, "the file begins with a byte order mark: save it as plain UTF-8")
	}
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		return at(0, "the file is empty: `ws-daemon config example` prints one that is not")
	}
	if i := invalidUTF8(data); i >= 0 {
		return at(int64(i), "this is not UTF-8 text")
	}
	var whole json.RawMessage
	err := json.Unmarshal(data, &whole)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return at(syntax.Offset, "this is not JSON: %v", syntax)
	}
	if text[0] != '{' {
		return at(0, "a configuration is a JSON object, {…}, not %s", excerpt(text))
	}
	return nil
}

// invalidUTF8 returns the offset of the first byte that is no text, -1 if there is none.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func lineOf(data []byte, offset int64) int {
	return bytes.Count(data[:max(0, min(offset, int64(len(data))))], []byte("\n")) + 1
}

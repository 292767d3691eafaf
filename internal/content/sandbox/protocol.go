package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// maxInput is the size of what a task is given.
	maxInput = 4 << 20
	// maxMessage is the size of one message of a task: its result, for example.
	maxMessage = 2 << 20
	// maxMessages is the size of all of them, progress included.
	maxMessages = 256 << 20
	// maxText is the size of an error's message.
	maxText = 4 << 10
)

// setup is what the first stage has to know.
type setup struct {
	// Dir is the task's directory, ReadOnly whether it may only read it.
	Dir      string `json:"dir"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Network  bool   `json:"network,omitempty"`
	// Listen gives the task a socket that listens.
	Listen bool `json:"listen,omitempty"`
	// Scratch is a directory for temporary files, where there is no namespace of mounts to have one of its own.
	Scratch string   `json:"scratch,omitempty"`
	Visible []string `json:"visible,omitempty"`
	UID     uint32   `json:"uid"`
	GID     uint32   `json:"gid"`
	Flags   uintptr  `json:"flags"`
	Limits  Limits   `json:"limits"`
	// Without are protections to leave out.
	Without []Protection `json:"without,omitempty"`
}

// order is what the second stage has to know.
type order struct {
	Task  string          `json:"task"`
	Input json.RawMessage `json:"input,omitempty"`
}

// lack is a protection that could not be had.
type lack struct {
	Protection Protection `json:"protection"`
	Reason     string     `json:"reason"`
}

// message is what comes back: one field is set.
type message struct {
	Lack     *lack           `json:"lack,omitempty"`
	Progress json.RawMessage `json:"progress,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Failure  *failure        `json:"failure,omitempty"`
}

// failure is a task's error, or that of making the sandbox.
type failure struct {
	Kind    string `json:"kind,omitempty"`
	Message string `json:"message"`
	// Setup says that the sandbox could not be made; Limit that a limit was exceeded.
	Setup bool `json:"setup,omitempty"`
	Limit bool `json:"limit,omitempty"`
}

var errTooLarge = errors.New("message is too large")

// send writes a message behind its size.
func send(w io.Writer, v any, limit int) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes", errTooLarge, len(data))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, len(data)+4), uint32(len(data)))
	_, err = w.Write(append(frame, data...)) // at once: progress and results come from several goroutines
	return err
}

// receive reads what send wrote, and not a byte more. [io.EOF] after the last message.
func receive(r io.Reader, v any, limit int) (int, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if n > limit {
		return 0, fmt.Errorf("%w: %d bytes", errTooLarge, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, fmt.Errorf("message is cut off: %w", err)
	}
	return n, json.Unmarshal(data, v)
}

// clean makes text fit for a status: one line of printable UTF-8, the end of it if it is long.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || (r >= 0x7f && r < 0xa0) || r == utf8.RuneError:
			return -1
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[len(text)-limit:], "")
	}
	return text
}

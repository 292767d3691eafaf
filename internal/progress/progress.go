// Package progress shows on one line of a terminal how far something is.
package progress

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"
)

const (
	// pause is the shortest time between two drawings.
	pause = 100 * time.Millisecond
	// lookPause is how often it is looked for what something waits for.
	lookPause = time.Second
)

// Step is how far something is. A total of 0 is not known.
type Step struct {
	// What is done, in a word or two; may be empty.
	What string
	// Files and Bytes that are done, and that there are, as far as is known: there may turn out to be more.
	Files, FilesTotal, Bytes, BytesTotal int64
}

// Bar draws steps over each other. The nil one draws nothing.
type Bar struct {
	out   io.Writer
	width func() int
	now   func() time.Time

	mu           sync.Mutex
	began, drawn time.Time
	shown        bool
	last         string // text of the last step
	stop         func() // ends Watch and waits for that; nil if there is none
}

// On returns a bar on a terminal; nil if the file is none.
func On(file *os.File) *Bar {
	fd := int(file.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	return &Bar{out: file, now: time.Now, width: func() int {
		if width, _, err := term.GetSize(fd); err == nil && width > 0 {
			return width
		}
		return 80
	}}
}

// Show draws a step, unless another one was drawn a moment ago.
func (b *Bar) Show(s Step) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.began.IsZero() {
		b.began = now
	}
	if b.shown && now.Sub(b.drawn) < pause {
		return
	}
	b.drawn, b.last = now, s.text(now.Sub(b.began))
	b.draw(b.last)
}

// draw has the lock.
func (b *Bar) draw(text string) {
	b.shown = true
	fmt.Fprint(b.out, "\r"+cut(text, b.width()-1)+"\x1b[K")
}

// Watch asks every second, until End, what the work waits for, and draws that in place of a step that is not followed by another; "" is
// nothing. Somebody who looks at a line that does not move wants to know why.
func (b *Bar) Watch(waiting func() string) {
	if b == nil {
		return
	}
	ended, left := make(chan struct{}), make(chan struct{})
	b.stop = func() { close(ended); <-left }
	go func() {
		defer close(left)
		tick := time.NewTicker(lookPause)
		defer tick.Stop()
		for waited := false; ; {
			select {
			case <-ended:
				return
			case <-tick.C:
				waited = b.look(waiting(), waited)
			}
		}
	}()
}

// look draws what is waited for, or the last step again once nothing is, and says whether something is.
func (b *Bar) look(text string, waited bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.now().Sub(b.drawn) < lookPause:
		return false
	case text != "":
		b.draw(text)
	case waited:
		b.draw(b.last)
	}
	return text != ""
}

// End empties the line.
func (b *Bar) End() {
	if b == nil {
		return
	}
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
	if b.shown {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.shown = false
	}
}

// cut has what is drawn stay in its line, whatever it is: a store's own words may be part of it.
func cut(text string, width int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text))
	return string(runes[:min(len(runes), max(width, 0))])
}

// text has what is known: a bar where the end is, and a time for it once the pace can be told.
func (s Step) text(passed time.Duration) string {
	var parts []string
	if s.What != "" {
		parts = append(parts, s.What)
	}
	done := s.fraction()
	if done >= 0 {
		parts = append(parts, bar(done))
	}
	if s.Files > 0 || s.FilesTotal > 0 || s.Bytes == 0 { // else nobody counts them
		parts = append(parts, amount(Count(s.Files), Count(s.FilesTotal), s.FilesTotal > s.Files)+" files")
	}
	parts = append(parts, amount(Bytes(s.Bytes), Bytes(s.BytesTotal), s.BytesTotal > s.Bytes))
	if passed < time.Second {
		return strings.Join(parts, "  ")
	}
	parts = append(parts, Bytes(int64(float64(s.Bytes)/passed.Seconds()))+"/s")
	if done > 0 && done < 1 {
		left := time.Duration(float64(passed) * (1 - done) / done)
		parts = append(parts, left.Round(time.Second).String()+" left")
	}
	return strings.Join(parts, "  ")
}

// fraction is from 0 to 1; negative if nobody knows.
func (s Step) fraction() float64 {
	switch {
	case s.BytesTotal > 0:
		return min(1, float64(s.Bytes)/float64(s.BytesTotal))
	case s.FilesTotal > 0:
		return min(1, float64(s.Files)/float64(s.FilesTotal))
	}
	return -1
}

func bar(done float64) string {
	const width = 20
	filled := int(done * width)
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("#", filled), strings.Repeat("-", width-filled), int(done*100))
}

func amount(done, total string, known bool) string {
	if !known {
		return done
	}
	return done + " of " + total
}

// Count writes a number, which is not negative, with its thousands apart.
func Count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	from := len(digits) % 3
	var groups []string
	if from > 0 {
		groups = append(groups, digits[:from])
	}
	for ; from < len(digits); from += 3 {
		groups = append(groups, digits[from:from+3])
	}
	return strings.Join(groups, ",")
}

// Bytes writes a size with two or three digits that matter, in the units of the objects: 512, 3.2Gi, 20Gi.
func Bytes(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10)
	}
	value, unit := float64(n), 0
	for value >= 1<<10 && unit < 6 {
		value, unit = value/(1<<10), unit+1
	}
	digits := 0
	if value < 10 {
		digits = 1
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	return strings.TrimSuffix(text, ".0") + "KMGTPE"[unit-1:unit] + "i"
}

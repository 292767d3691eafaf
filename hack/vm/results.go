package vm

import (
	"archive/tar"
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Events that the guest sends.
const (
	eventReady    = "ready"    // all is prepared, the first job begins
	eventFinished = "finished" // the disks are unmounted, the power goes off
)

// Result is how a job ended.
type Result struct {
	Name string
	// Code is the exit code; 124 after the timeout, 137 if that needed force, 128 and the signal's number after a signal.
	Code int
	Time time.Duration
	// Left names what the job should have removed: processes, mounts, loop devices, logical volumes, temporary files.
	Left []string
	// Dir has the files that the job made, on this machine.
	Dir string
}

// receive stores what the guest sends below dir, until the stream ends. The stream consists of tar archives, one after the
// other. Each is an event, or a directory of results; event is called with its name when it has come.
func receive(stream io.Reader, dir string, event func(name string)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("receive results: %w", err)
	}
	defer func() { _ = root.Close() }()
	buffered := bufio.NewReader(stream)
	for {
		if _, err := buffered.Peek(1); err != nil {
			// A guest that is cut off ends between two archives or within one, which is told below.
			return ignoreEOF(err)
		}
		name, err := receiveArchive(tar.NewReader(buffered), root)
		if err != nil {
			return fmt.Errorf("receive results: %w", err)
		}
		event(name)
	}
}

// receiveArchive stores one archive and gives the name of its first entry.
func receiveArchive(archive *tar.Reader, root *os.Root) (first string, err error) {
	for {
		header, err := archive.Next()
		if err != nil {
			return first, ignoreEOF(err)
		}
		name := path.Clean(header.Name)
		first = cmp.Or(first, name)
		switch {
		case header.Typeflag == tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case header.Typeflag != tar.TypeReg:
			err = fmt.Errorf("%s is neither a file nor a directory", name)
		case path.Dir(name) == ".":
			// An event has no content.
		default:
			err = receiveFile(archive, root, name)
		}
		if err != nil {
			return first, err
		}
	}
}

func receiveFile(content io.Reader, root *os.Root, name string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// readResult reads what the guest's init wrote about a job. An error that is os.ErrNotExist means that it did not end.
func readResult(dir, name string) (Result, error) {
	result := Result{Name: name, Dir: filepath.Join(dir, "results", filepath.FromSlash(name))}
	code, err := readNumber(filepath.Join(result.Dir, "code"))
	if err != nil {
		return Result{}, fmt.Errorf("read result of %s: %w", name, err)
	}
	milliseconds, err := readNumber(filepath.Join(result.Dir, "milliseconds"))
	if err != nil {
		return Result{}, fmt.Errorf("read result of %s: %w", name, err)
	}
	left, err := os.ReadFile(filepath.Join(result.Dir, "left"))
	if err != nil {
		return Result{}, fmt.Errorf("read result of %s: %w", name, err)
	}
	result.Code, result.Time = code, time.Duration(milliseconds)*time.Millisecond
	for line := range strings.Lines(string(left)) {
		result.Left = append(result.Left, strings.TrimSpace(line))
	}
	return result, nil
}

// resultOf gives the name of the job whose results came under a name.
func resultOf(name string) (job string, ok bool) { return strings.CutPrefix(name, "results/") }

func readNumber(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

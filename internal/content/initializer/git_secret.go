package initializer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// secretFD is the descriptor under which git's children find the credentials: the first of exec.Cmd.ExtraFiles.
const secretFD = "3"

// itselfFD is the descriptor of this program, where git shall run it as its ssh.
const itselfFD = "4"

// secret holds the credentials in a sealed memory file, which git's credential helper, git itself or ssh reads through an inherited
// descriptor. A pipe would do for one question only, and anything with a name could be found.
type secret struct {
	file   *os.File
	kind   secretKind
	values []string // what must never be shown
}

type secretKind int

const (
	noSecret secretKind = iota
	// basicSecret is what the helper prints.
	basicSecret
	// bearerSecret is a file of git's configuration.
	bearerSecret
	// keySecret is for ssh.
	keySecret
)

func newSecret(c *Credentials, r remote, deny []netip.Prefix, stall time.Duration) (*secret, error) {
	if c == nil {
		return &secret{}, nil
	}
	s := &secret{values: hidden(*c)}
	text := ""
	switch {
	case r.scheme == "ssh":
		s.kind = keySecret
		data, err := json.Marshal(sshSecret{Host: r.host, Key: c.Key, KnownHosts: c.KnownHosts, Deny: deny, Connect: min(sshConnect, stall)})
		if err != nil {
			return nil, err
		}
		text = string(data)
	case c.Bearer != "":
		s.kind = bearerSecret
		text = fmt.Sprintf("[http %q]\n\textraHeader = %q\n", r.scheme+"://"+r.host+"/", "Authorization: Bearer "+c.Bearer)
	default:
		s.kind = basicSecret
		text = "username=" + c.Username + "\npassword=" + c.Password + "\n"
	}
	var err error
	if s.file, err = memoryFile("credentials", text); err != nil {
		return nil, err
	}
	return s, nil
}

// memoryFile returns a file without a name, sealed so that nobody who gets the descriptor can change what is in it.
func memoryFile(name, text string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, newError(Failed, err, "hold credentials in memory: %v", err)
	}
	f := os.NewFile(uintptr(fd), name)
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err = f.WriteString(text); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = f.Close()
		return nil, newError(Failed, err, "hold credentials in memory: %v", err)
	}
	return f, nil
}

func (s *secret) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// hidden lists the forms in which credentials can come back in a message. Well-known user names are no secret.
func hidden(c Credentials) []string {
	var values []string
	for _, v := range []string{c.Password, c.Bearer, strings.TrimSpace(c.Key)} {
		if v != "" {
			values = append(values, base64.StdEncoding.EncodeToString([]byte(v)), v, url.QueryEscape(v), url.PathEscape(v))
		}
	}
	for line := range strings.Lines(c.Key) {
		if line = strings.TrimSpace(line); len(line) > 16 {
			values = append(values, line)
		}
	}
	if c.Password != "" {
		values = append([]string{base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))}, values...)
	}
	switch c.Username {
	case "", "git", "oauth2", "x-access-token":
		return values
	}
	return append(values, c.Username, url.QueryEscape(c.Username), url.PathEscape(c.Username))
}

// helper is the value of git's credential.<url>.helper. Git asks it only for this URL; it looks at the question
// itself as well, so that a lapse in git's matching gives nothing away.
func (r remote) helper() string {
	return `!f() { test "$1" = get || exit 0; p=; h=; ` +
		`while IFS= read -r l && test -n "$l"; do case "$l" in ` +
		`'protocol=` + r.scheme + `') p=1;; 'host=` + r.host + `') h=1;; esac; done; ` +
		`if test "$p$h" = 11; then cat /proc/self/fd/` + secretFD + `; fi; }; f`
}

// maxWords is how much of a failed program's output is told.
const maxWords = 1 << 10

// sanitise makes git's last words fit for a status: no secrets, no control characters, one line, at most the last kilobyte.
func (s *secret) sanitise(text string) string {
	for _, v := range s.values {
		text = strings.ReplaceAll(text, v, "***")
	}
	text = regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)[^/@\s]*@`).ReplaceAllString(text, "$1***@")
	var lines []string
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		line = strings.TrimSpace(strings.Map(printable, line))
		if line != "" && !progressLine(line) && !noise(line) {
			lines = append(lines, line)
		}
	}
	text = strings.Join(lines, "; ")
	if len(text) <= maxWords {
		return text
	}
	return "…" + strings.ToValidUTF8(text[len(text)-maxWords:], "")
}

// printable also drops what is not UTF-8: a status must be valid text.
func printable(r rune) rune {
	if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\uFFFD' {
		return -1
	}
	return r
}

func noise(line string) bool {
	switch line {
	case "Please make sure you have the correct access rights", "and the repository exists.":
		return true
	}
	return strings.HasPrefix(line, "Cloning into ") || strings.HasPrefix(line, "warning: You appear to have cloned")
}

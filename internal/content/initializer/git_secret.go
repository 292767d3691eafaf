package initializer

import (
	"encoding/base64"
	"net/url"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// secretFD is the descriptor under which git's children find the credentials: the first of exec.Cmd.ExtraFiles.
const secretFD = "3"

// secret holds the credentials in a sealed memory file, which git's credential helper reads through an inherited
// descriptor. A pipe would do for one question only, and anything with a name could be found.
type secret struct {
	file   *os.File
	values []string // what must never be shown
}

func newSecret(c *Credentials) (*secret, error) {
	if c == nil {
		return &secret{}, nil
	}
	fd, err := unix.MemfdCreate("credentials", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, newError(Failed, err, "hold credentials in memory: %v", err)
	}
	s := &secret{file: os.NewFile(uintptr(fd), "credentials"), values: hidden(*c)}
	if err := s.write(*c); err != nil {
		s.close()
		return nil, newError(Failed, err, "hold credentials in memory: %v", err)
	}
	return s, nil
}

// write seals the file afterwards, so that nobody who gets the descriptor can change what git will answer.
func (s *secret) write(c Credentials) error {
	if _, err := s.file.WriteString("username=" + c.Username + "\npassword=" + c.Password + "\n"); err != nil {
		return err
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	_, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, seals)
	return err
}

func (s *secret) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// hidden lists the forms in which credentials can come back in a message. Well-known user names are no secret.
func hidden(c Credentials) []string {
	user, password := c.Username, c.Password
	both := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	alone := base64.StdEncoding.EncodeToString([]byte(password))
	switch user {
	case "git", "oauth2", "x-access-token":
		return []string{both, alone, password, url.QueryEscape(password), url.PathEscape(password)}
	}
	return []string{
		both, alone, password, url.QueryEscape(password), url.PathEscape(password),
		user, url.QueryEscape(user), url.PathEscape(user),
	}
}

// helper is the value of git's credential.<url>.helper. Git asks it only for this URL; it looks at the question
// itself as well, so that a lapse in git's matching gives nothing away.
func (r remote) helper() string {
	return `!f() { test "$1" = get || exit 0; p=; h=; ` +
		`while IFS= read -r l && test -n "$l"; do case "$l" in ` +
		`'protocol=` + r.scheme + `') p=1;; 'host=` + r.host + `') h=1;; esac; done; ` +
		`if test "$p$h" = 11; then cat /proc/self/fd/` + secretFD + `; fi; }; f`
}

// sanitise makes git's last words fit for a status: no secrets, no control characters, at most three lines.
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
	text = strings.Join(lines[max(0, len(lines)-3):], "; ")
	return strings.ToValidUTF8(text[:min(len(text), 600)], "")
}

// printable also drops what is not UTF-8: a status must be valid text.
func printable(r rune) rune {
	if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\uFFFD' {
		return -1
	}
	return r
}

func noise(line string) bool {
	return strings.HasPrefix(line, "Cloning into ") || strings.HasPrefix(line, "warning: You appear to have cloned")
}

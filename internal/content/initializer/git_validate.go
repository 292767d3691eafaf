package initializer

import (
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	maxURL      = 2048
	maxBranch   = 250
	maxLocation = 1024
)

// remote is the part of the URL that credentials are bound to.
type remote struct {
	scheme string
	host   string // with the port if the URL has one, as git hands it to credential helpers
	also   string // another scheme that the server may redirect to, or ""
}

// validate refuses what could be mistaken for an option, a command or a path, before git sees it.
func (g Git) validate(spec GitSpec) (remote, error) {
	r, err := g.validateURL(spec.URL)
	if err != nil {
		return remote{}, err
	}
	if err := validateTarget(spec); err != nil {
		return remote{}, err
	}
	if err := validateLocation(spec.CheckoutLocation); err != nil {
		return remote{}, err
	}
	return r, validateCredentials(spec.Credentials)
}

func (g Git) validateURL(raw string) (remote, error) {
	if raw == "" || len(raw) > maxURL || raw[0] == '-' || hasControl(raw) || strings.ContainsAny(raw, " \\\"'") {
		return remote{}, newError(Invalid, nil, "the git URL is empty, too long, or has characters that are not allowed")
	}
	u, err := url.Parse(raw)
	if err != nil { // the parser's message may repeat a password
		return remote{}, newError(Invalid, nil, "the git URL cannot be parsed")
	}
	schemes := g.schemes()
	if !slices.Contains(schemes, u.Scheme) {
		return remote{}, newError(Invalid, nil, "git URL scheme %q is not allowed; use %s", u.Scheme, strings.Join(schemes, " or "))
	}
	if u.User != nil {
		return remote{}, newError(Invalid, nil, "the git URL has a user name or password in it; put them into the secret")
	}
	if !validHost(u.Host) || u.Fragment != "" || u.Opaque != "" {
		return remote{}, newError(Invalid, nil, "the git URL needs a plain host name and no fragment")
	}
	r := remote{scheme: u.Scheme, host: u.Host}
	if u.Scheme == "http" && slices.Contains(schemes, "https") {
		r.also = "https" // an upgrade is welcome, a downgrade never happens
	}
	return r, nil
}

// schemes returns the allowed schemes, limited to those whose handling is implemented here.
func (g Git) schemes() []string {
	if len(g.AllowedSchemes) == 0 {
		return []string{"https"}
	}
	var known []string
	for _, s := range g.AllowedSchemes {
		if s == "https" || s == "http" {
			known = append(known, s)
		}
	}
	return known
}

// validHost keeps to characters that mean nothing to a shell or to git's configuration keys.
func validHost(host string) bool {
	return regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`).MatchString(host)
}

func validateTarget(spec GitSpec) error {
	set := 0
	for _, s := range []string{spec.Branch, spec.LocalBranch, spec.Commit} {
		if s != "" {
			set++
		}
	}
	if set > 1 {
		return newError(Invalid, nil, "name at most one of branch, localBranch and commit")
	}
	name := spec.Branch + spec.LocalBranch
	if strings.HasPrefix(name, "-") || name == "HEAD" || len(name) > maxBranch || hasControl(name) {
		return newError(Invalid, nil, "branch name %q is not valid", name)
	}
	if spec.Commit != "" && !regexp.MustCompile(`^([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$`).MatchString(spec.Commit) {
		return newError(Invalid, nil, "commit %q is not a full commit id (40 or 64 hexadecimal digits)", spec.Commit)
	}
	return nil
}

func validateLocation(location string) error {
	if location == "" {
		return nil
	}
	bad := len(location) > maxLocation || hasControl(location) || location[0] == '-' || location == "." ||
		!filepath.IsLocal(location) || filepath.Clean(location) != location
	for part := range strings.SplitSeq(location, "/") {
		bad = bad || strings.EqualFold(part, ".git") || len(part) > 255
	}
	if bad {
		return newError(Invalid, nil, "checkout location %q is not a plain relative path", location)
	}
	return nil
}

func validateCredentials(c *Credentials) error {
	if c == nil {
		return nil
	}
	if c.Username == "" || c.Password == "" {
		return newError(Invalid, nil, "the git credentials need a user name and a password")
	}
	if strings.ContainsAny(c.Username+c.Password, "\n\r\x00") {
		return newError(Invalid, nil, "the git credentials contain a line break; write the secret without one")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

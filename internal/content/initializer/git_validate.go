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
	r, err := validateURL("git", spec.URL, g.schemes())
	if err != nil {
		return remote{}, err
	}
	if err := validateTarget(spec); err != nil {
		return remote{}, err
	}
	if err := validatePath("checkout location", spec.CheckoutLocation); err != nil {
		return remote{}, err
	}
	if err := validateExtent(spec); err != nil {
		return remote{}, err
	}
	if r.scheme == "ssh" {
		return r, validateKey(spec.Credentials)
	}
	return r, validateCredentials(spec.Credentials)
}

// validateURL takes only what a URL of this kind needs. A user name is a part of URLs of ssh, where it is no secret.
func validateURL(what, raw string, schemes []string) (remote, error) {
	u, err := parseURL(what, raw)
	if err != nil {
		return remote{}, err
	}
	if !slices.Contains(schemes, u.Scheme) {
		return remote{}, newError(Invalid, nil, "%s URL scheme %q is not allowed; use %s", what, u.Scheme, strings.Join(schemes, " or "))
	}
	if u.User != nil && (u.Scheme != "ssh" || !validUser(u.User)) {
		return remote{}, newError(Invalid, nil, "the %s URL has a user name or password in it; put them into the secret", what)
	}
	if !validHost(u.Host) || u.Fragment != "" || u.Opaque != "" {
		return remote{}, newError(Invalid, nil, "the %s URL needs a plain host name and no fragment", what)
	}
	r := remote{scheme: u.Scheme, host: u.Host}
	if u.Scheme == "http" && slices.Contains(schemes, "https") {
		r.also = "https" // an upgrade is welcome, a downgrade never happens
	}
	return r, nil
}

func parseURL(what, raw string) (*url.URL, error) {
	if raw == "" || len(raw) > maxURL || raw[0] == '-' || hasControl(raw) || strings.ContainsAny(raw, " \\\"'") {
		return nil, newError(Invalid, nil, "the %s URL is empty, too long, or has characters that are not allowed", what)
	}
	u, err := url.Parse(raw)
	if err != nil { // the parser's message may repeat a password
		return nil, newError(Invalid, nil, "the %s URL cannot be parsed", what)
	}
	return u, nil
}

func validUser(u *url.Userinfo) bool {
	_, password := u.Password()
	return !password && regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`).MatchString(u.Username())
}

// schemes returns the allowed schemes, limited to those whose handling is implemented here.
func (g Git) schemes() []string { return known(g.AllowedSchemes, "ssh") }

// known keeps the schemes that are implemented: those of the web, and others that the caller knows.
func known(allowed []string, others ...string) []string {
	if len(allowed) == 0 {
		return []string{"https"}
	}
	var schemes []string
	for _, s := range allowed {
		if s == "https" || s == "http" || slices.Contains(others, s) {
			schemes = append(schemes, s)
		}
	}
	return schemes
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

// validatePath takes plain relative paths, and "".
func validatePath(what, location string) error {
	if location == "" {
		return nil
	}
	bad := len(location) > maxLocation || hasControl(location) || location[0] == '-' || location == "." ||
		!filepath.IsLocal(location) || filepath.Clean(location) != location
	for part := range strings.SplitSeq(location, "/") {
		bad = bad || strings.EqualFold(part, ".git") || len(part) > 255
	}
	if bad {
		return newError(Invalid, nil, "%s %q is not a plain relative path", what, location)
	}
	return nil
}

func validateCredentials(c *Credentials) error {
	switch {
	case c == nil:
		return nil
	case strings.ContainsAny(c.Username+c.Password+c.Bearer, "\n\r\x00"):
		return newError(Invalid, nil, "the credentials contain a line break; write the secret without one")
	case c.Bearer != "" && c.Username+c.Password == "":
		return nil
	case c.Username == "" || c.Password == "" || c.Bearer != "":
		return newError(Invalid, nil, "the credentials need a user name and a password, or a bearer token")
	}
	return nil
}

func validateKey(c *Credentials) error {
	if c == nil || c.Key == "" || c.KnownHosts == "" {
		return newError(Unauthorized, nil, "a URL of ssh needs a secret with a private key and known_hosts")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

package logs

import "regexp"

const (
	redacted = "[redacted]"
	// secretName is a name that says that what it names is secret.
	//nolint:gosec // it looks for them
	secretName = `[a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|authorization|credential|cookie|api[-_]?key|access[-_]?key|private[-_]?key)[a-z0-9_.-]*`
)

// secrets are what must not be read in a log, by how it looks; the groups around it stay.
var secrets = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	// A value whose name says that it is secret, in JSON: a text, or a list of them.
	{regexp.MustCompile(`(?i)("` + secretName + `"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|\[[^\]]*\])`), `$1"` + redacted + `"`},
	// The same in JSON that is the text of a value.
	{regexp.MustCompile(`(?i)(\\"` + secretName + `\\"\s*:\s*)\\"(?:[^"\\]|\\[^"])*\\"`), `$1\"` + redacted + `\"`},
	// The same in text, as NAME=VALUE.
	{regexp.MustCompile(`(?i)\b([a-z0-9_]*(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|signature|credential)=)` +
		`[^\s&"'\\,;]+`), `$1` + redacted},
	// User and password in a URL.
	{regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^/\s"'\\@?#]+(?:@[^/\s"'\\@?#]*)*@`), `$1` + redacted + `@`},
	// What follows the name of a way to authenticate.
	{regexp.MustCompile(`(?i)\b(bearer|basic|aws4-hmac-sha256)\s+[a-z0-9+/_.~=-]{12,}`), `$1 ` + redacted},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?`), redacted},
	// Tokens that begin with their maker's mark.
	{regexp.MustCompile(`\b(?:gh[opusr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b`), redacted},
	{regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]*PRIVATE KEY-----)?`), redacted},
}

// Redact returns text without what looks like a secret.
func Redact(text []byte) []byte {
	for _, s := range secrets {
		text = s.pattern.ReplaceAll(text, []byte(s.replacement))
	}
	return text
}

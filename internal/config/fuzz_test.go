package config

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whatever is given for a configuration, the answer is a configuration that is read again as it is written, or mistakes that each have
// a line of the text.
func FuzzParse(f *testing.F) {
	example, err := json.Marshal(Example())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"content": {"workingArea": "/x"}, "storage": {"kind": "filesystem", "filesystem": {"path": "/s"}}, "volumes": {"classes": {"default": {"driver": "directory"}}}}`,
		string(example), "", "{}", "null", "[]", `{"content": null}`, `{"limits": {"store": {"memory": "1e9"}}}`, `{"a": {"a": {"a": []}}}`,
		`{"volumes": {"classes": {"": {}, "a.b": {}, "a": {"driver": "lvm", "minSize": "10m"}}}}`, `{"content": {"orphanGrace": "9999999d"}}`,
		"{\"log\": {\"level\": \"\xff\"}}", "\xef\xbb\xbf{}", `{"log": {"level": "info", "level": "debug"}}`, `{"metrics": {"address": "[::1]:9"}}`,
		`{"storage": {"kind": "s3", "s3": {"bucket": "b", "endpoint": "https://u:p@h"}}}`, strings.Repeat("[", 20000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err == nil {
			checkRoundTrip(t, c)
			return
		}
		refused, ok := err.(*InvalidError) //nolint:errorlint // it is never wrapped
		if !ok || len(refused.Mistakes) == 0 {
			t.Fatalf("%T without mistakes: %v", err, err)
		}
		for _, m := range refused.Mistakes {
			if m.Line < 1 || m.Line > lineOf(data, int64(len(data))) || m.Reason == "" {
				t.Fatalf("%+v is nowhere in a text of %d lines", m, lineOf(data, int64(len(data))))
			}
		}
	})
}

func checkRoundTrip(t *testing.T, c Config) {
	t.Helper()
	written, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(written)
	if err != nil {
		t.Fatalf("%s is refused: %v", written, err)
	}
	if _, changed, pending := takeOver(c, again); len(changed)+len(pending) > 0 {
		t.Fatalf("%s reads differently: %v %v", written, changed, pending)
	}
}

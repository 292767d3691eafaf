package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"log"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"go.uber.org/zap/zapcore"
)

func logInto(format, level string) (*Log, *bytes.Buffer) {
	var out bytes.Buffer
	return newLog(zapcore.AddSync(&out), format, level), &out
}

func TestLinesAreObjects(t *testing.T) {
	g := NewWithT(t)
	l, out := logInto("json", "info")
	l.WithName("store").WithValues("node", "a").Info("the store is fit", "count", 3)
	var line map[string]any
	g.Expect(json.Unmarshal(out.Bytes(), &line)).To(Succeed())
	g.Expect(line).To(HaveKey("ts"))
	delete(line, "ts")
	g.Expect(line).To(Equal(map[string]any{"level": "info", "logger": "store", "msg": "the store is fit", "node": "a", "count": 3.0}))
}

func TestLevelChangesWhatIsWritten(t *testing.T) {
	g := NewWithT(t)
	l, out := logInto("console", "info")
	named := l.WithName("early") // made before the change
	named.V(1).Info("quiet")
	g.Expect(out.String()).To(BeEmpty())
	l.SetLevel("debug")
	named.V(1).Info("loud")
	g.Expect(out.String()).To(ContainSubstring("loud"))
	l.SetLevel("error")
	l.SetLevel("nonsense")
	out.Reset()
	named.Info("not now")
	g.Expect(out.String()).To(BeEmpty())
	named.Error(errors.New("broken"), "always")
	g.Expect(out.String()).To(ContainSubstring("broken"))
}

// Servers of the standard library write lines of their own kind: those are lines of ours, too, without secrets.
func TestTheStandardLogIsTakenOver(t *testing.T) {
	g := NewWithT(t)
	l, out := logInto("json", "info")
	restore := l.TakeOver()
	defer restore()
	log.Printf("http: TLS handshake error from %s: EOF", "192.0.2.1:1")
	g.Expect(out.String()).To(BeEmpty(), "who cannot connect fills no log")
	l.SetLevel("debug")
	log.Printf("http: TLS handshake error from %s: EOF", "192.0.2.1:1")
	g.Expect(out.String()).To(MatchRegexp(`^\{"level":"debug","ts":"[^"]+","logger":"net","msg":"http: TLS handshake error from 192.0.2.1:1: EOF"\}\n$`))
	l.SetLevel("info")
	out.Reset()
	log.Print("http: panic serving 192.0.2.1:1: https://me:hunter2@store")
	g.Expect(out.String()).To(MatchRegexp(`^\{"level":"error","ts":"[^"]+","logger":"net","msg":"http: panic serving 192.0.2.1:1: https://\[redacted\]@store"\}\n$`))
	restore()
	g.Expect(log.Writer()).To(Equal(os.Stderr))
}

// Whatever a secret comes in with, it does not come out.
func TestS8_SecretsAreNotLogged(t *testing.T) {
	const secret = "hunter2hunter2hunter2"
	pem := "-----BEGIN RSA " + "PRIVATE KEY-----\n" + secret + "\n-----END RSA " + "PRIVATE KEY-----"
	values := map[string]any{
		"password":      secret,
		"authToken":     secret,
		"client_secret": secret,
		"Authorization": []string{"Bearer " + secret},
		"url":           "https://user:" + secret + "@example.com/r.git",
		"twoAts":        "https://user@corp:" + secret + "@example.com/r.git",
		"header":        "Authorization: Basic " + secret,
		"query":         "https://b.s3.example.com/o?X-Amz-Signature=" + secret + "&x=1",
		"environment":   []string{"AWS_SECRET_ACCESS_KEY=" + secret},
		"jwt":           "eyJhbGciOiJSUzI1NiJ9.eyJ" + secret + "." + secret,
		"github":        "ghp_" + strings.ReplaceAll(secret, "_", ""),
		"pem":           pem,
		"nested":        map[string]any{"inner": map[string]any{"apiKey": secret}},
		"quoted":        map[string]any{"password": `a"b\` + secret},
		"inText":        `{"password":"` + secret + `"}`,
		"error":         errors.New("clone https://oauth2:" + secret + "@example.com: 403"),
	}
	for name, value := range values {
		for _, format := range []string{"json", "console"} {
			t.Run(name+" in "+format, func(t *testing.T) {
				g := NewWithT(t)
				l, out := logInto(format, "info")
				l.WithValues(name, value).Info("said", name, value)
				g.Expect(out.String()).NotTo(ContainSubstring(secret))
				g.Expect(out.String()).To(ContainSubstring(redacted))
				if format == "json" {
					g.Expect(json.Valid(out.Bytes())).To(BeTrue(), out.String())
				}
			})
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	for _, text := range []string{
		"the workspace team/web is backed up", "see https://example.com/a@b", "basic operations", "token expired", "user@example.com",
		`{"authSecretRef":{"name":"web-git"}}`, "s3://bucket/prefix?endpoint=https%3A%2F%2Fm", "a key=value pair",
	} {
		NewWithT(t).Expect(string(Redact([]byte(text)))).To(Equal(text))
	}
}

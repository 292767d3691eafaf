package drivers_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/store/drivers"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	g := NewWithT(t)
	g.Expect(os.Mkdir(filepath.Join(dir, "a b%"), 0o700)).To(Succeed())
	ca := filepath.Join(dir, "ca")
	g.Expect(os.WriteFile(ca, []byte("none"), 0o600)).To(Succeed())
	for url, want := range map[string]string{
		"file://" + dir:                         "",
		"file://" + dir + "/":                   "",
		"file://" + dir + "/a%20b%25":           "",
		"file://host" + dir:                     "a file URL has an absolute path and nothing else",
		"file:relative":                         "a file URL has an absolute path and nothing else",
		"file://" + dir + "?mode=x":             "a file URL has an absolute path and nothing else",
		"file://" + dir + "/missing":            "is it mounted?",
		"ftp://hunter2@host":                    `unknown scheme "ftp"`,
		dir:                                     `unknown scheme ""`,
		"":                                      `unknown scheme ""`,
		"s3://key:hunter2@bucket/%zz\x7fprefix": "cannot be parsed",
		"s3://bucket":                           "",
		"s3://bucket/":                          "",
		"s3://bucket/some/prefix?region=eu-west-1":                    "",
		"s3://bucket/p?endpoint=https://minio:9000":                   "",
		"s3://bucket/p?endpoint=http://minio&path-style=false":        "",
		"s3://bucket/p?credentials=environment":                       "",
		"s3://bucket/p?credentials-file=/f&profile=x":                 "",
		"s3://bucket/p?credentials-dir=/d":                            "",
		"s3://key:hunter2@bucket/prefix?x=y":                          "credentials do not belong into the URL",
		"s3://":                                                       "write s3://bucket/prefix",
		"s3://bucket:9000/p":                                          "write s3://bucket/prefix",
		"s3://bucket/a//b":                                            `the prefix of a store key "a//b"`,
		"s3://bucket/../b":                                            `component ".." is not allowed`,
		"s3://bucket/p?secret=hunter2":                                "the URL of a s3:// store knows the settings endpoint, region, path-style",
		"s3://bucket/p?region=a&region=b":                             "each once",
		"s3://bucket/p?%zz=hunter2":                                   "cannot be parsed: write s3://bucket/prefix?setting=value",
		"s3://bucket/p?endpoint=minio:9000":                           "write endpoint=https://host:port",
		"s3://bucket/p?endpoint=https://u:hunter2@minio":              "write endpoint=https://host:port",
		"s3://bucket/p?endpoint=https://minio/path":                   "write endpoint=https://host:port",
		"s3://bucket/p?path-style=maybe":                              "path-style of a store is true or false",
		"s3://bucket/p?ca-file=relative":                              `the setting ca-file of a store must be an absolute path, not "relative"`,
		"s3://bucket/p?ca-file=" + ca:                                 "has no certificate",
		"s3://bucket/p?ca-file=" + ca + ".missing":                    "no such file",
		"s3://bucket/p?credentials=hunter2":                           `credentials of a store is "environment", or not set`,
		"s3://bucket/p?credentials=environment&credentials-dir=/d":    "a store has one kind of credentials",
		"s3://bucket/p?credentials-file=/f&credentials-dir=/d":        "a store has one kind of credentials",
		"s3://bucket/p?profile=x":                                     "a store has one kind of credentials",
		"s3://bucket/p?credentials-dir=relative":                      "must be an absolute path",
		"gs://bucket":                                                 "",
		"gs://bucket/some/prefix?credentials-file=/f":                 "",
		"gs://bucket/p?endpoint=http://127.0.0.1:4443":                "",
		"gs://bucket/p?region=x":                                      "the URL of a gs:// store knows the settings endpoint, ca-file, credentials-file",
		"gs://bucket/p?endpoint=nowhere":                              "write endpoint=https://host:port",
		"gs://bucket/p?credentials-file=relative":                     "must be an absolute path",
		"gs://bucket/p?endpoint=https://host&ca-file=/missing/ca.pem": "read the store's CA file",
	} {
		t.Run(url, func(t *testing.T) {
			g := NewWithT(t)
			s, err := drivers.Open(t.Context(), url)
			if want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				again, err := drivers.Open(t.Context(), s.String())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(again.String()).To(Equal(s.String()), "its name opens the same store")
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(want)))
			g.Expect(err).NotTo(MatchError(ContainSubstring("hunter2")), "S8: no secret in a message")
		})
	}
}

package config_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func withStorage(text string) []byte {
	return []byte(strings.Replace(complete, `{"kind": "filesystem", "filesystem": {"path": "/mnt/store"}}`, text, 1))
}

// The address that a configuration stands for is the one of the command line.
func TestStorageURL(t *testing.T) {
	for text, want := range map[string]string{
		`{"kind": "filesystem", "filesystem": {"path": "/mnt/a b"}}`:                      "file:///mnt/a%20b",
		`{"kind": "s3", "s3": {"bucket": "b"}}`:                                           "s3://b/",
		`{"kind": "s3", "s3": {"bucket": "b", "prefix": "/p/q/", "region": "eu-west-1"}}`: "s3://b/p/q?region=eu-west-1",
		`{"kind": "s3", "s3": {"bucket": "b", "endpoint": "https://m:9000", "pathStyle": false, "caFile": "/ca",
			"credentials": {"directory": "/d"}}}`: "s3://b/?ca-file=%2Fca&credentials-dir=%2Fd&endpoint=https%3A%2F%2Fm%3A9000&path-style=false",
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"file": "/f", "profile": "x"}}}`:                                     "s3://b/?credentials-file=%2Ff&profile=x",
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"environment": true}}}`:                                              "s3://b/?credentials=environment",
		`{"kind": "gcs", "gcs": {"bucket": "b"}}`:                                                                                  "gs://b/",
		`{"kind": "gcs", "gcs": {"bucket": "b", "prefix": "p", "endpoint": "http://m", "caFile": "/ca", "credentialsFile": "/f"}}`: "gs://b/p?ca-file=%2Fca&credentials-file=%2Ff&endpoint=http%3A%2F%2Fm",
	} {
		g := NewWithT(t)
		c, err := config.Parse(withStorage(text))
		g.Expect(err).NotTo(HaveOccurred(), text)
		g.Expect(c.Storage.URL()).To(Equal(want), text)
	}
}

// The samples are configurations that a daemon takes.
func TestSamplesOfStores(t *testing.T) {
	for kind, want := range map[string]string{
		"s3":  "s3://my-workspaces/production?credentials-dir=%2Fetc%2Fws-daemon-store&endpoint=https%3A%2F%2Fs3.eu-central-1.amazonaws.com&path-style=false&region=eu-central-1",
		"gcs": "gs://my-workspaces/production?credentials-file=%2Fetc%2Fws-daemon-store%2Fkey.json",
	} {
		c, err := config.Load("../../config/samples/store/" + kind + "/config.json")
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(c.Storage.URL()).To(Equal(want))
	}
}

func TestStorageRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"kind": "s3"}`:                                        "line 3: storage.s3: must be set for storage.kind s3",
		`{"kind": "s3", "gcs": {"bucket": "b"}}`:                "line 3: storage.s3: must be set for storage.kind s3",
		`{"kind": "gcs"}`:                                       "line 3: storage.gcs: must be set for storage.kind gcs",
		`{"kind": "s3", "s3": {}}`:                              "line 3: storage.s3.bucket: must be set",
		`{"kind": "s3", "s3": {"bucket": "b", "caFile": "ca"}}`: `line 3: storage.s3.caFile: must be an absolute path, not "ca"`,
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"file": "f"}}}`:                       `line 3: storage.s3.credentials.file: must be an absolute path, not "f"`,
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"profile": "p"}}}`:                    "line 3: storage.s3.credentials.profile: needs storage.s3.credentials.file",
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"directory": "d"}}}`:                  `line 3: storage.s3.credentials.directory: must be an absolute path, not "d"`,
		`{"kind": "s3", "s3": {"bucket": "b", "credentials": {"environment": true, "file": "/f"}}}`: "line 3: storage.s3.credentials: only one of environment, directory and file may be set",
		`{"kind": "s3", "s3": {"bucket": "b", "secretKey": "x"}}`:                                   "line 3: storage.s3.secretKey: there is no such key; there are endpoint, region, bucket, prefix, pathStyle, caFile, credentials",
		`{"kind": "s3", "s3": {"bucket": "b", "endpoint": "https://me:secret@m"}}`:                  "line 3: storage.s3.endpoint: must have no user and password in it: credentials come from files",
		`{"kind": "s3", "s3": {"bucket": "b", "endpoint": "m:9000"}}`:                               "line 3: storage.s3.endpoint: must be a URL such as https://host:port",
		`{"kind": "s3", "s3": {"bucket": "b", "endpoint": "https://m?x=y"}}`:                        "line 3: storage.s3.endpoint: must be a URL such as https://host:port, without ? and #",
		`{"kind": "gcs", "gcs": {"bucket": "b", "endpoint": "ftp://m"}}`:                            "line 3: storage.gcs.endpoint: must be a URL such as https://host:port",
		`{"kind": "gcs", "gcs": {}}`:                                                                "line 3: storage.gcs.bucket: must be set",
		`{"kind": "gcs", "gcs": {"bucket": "b", "credentialsFile": "f"}}`:                           `line 3: storage.gcs.credentialsFile: must be an absolute path, not "f"`,
		`{"kind": "gcs", "gcs": {"bucket": "b", "caFile": "f"}}`:                                    `line 3: storage.gcs.caFile: must be an absolute path, not "f"`,
	} {
		_, err := config.Parse(withStorage(text))
		NewWithT(t).Expect(err).To(MatchError(want), text)
	}
}

package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// The kinds of stores.
const (
	KindFilesystem = "filesystem"
	KindS3         = "s3"
	KindGCS        = "gcs"
)

// Storage is the object store. The group that Kind names must be set; the others may be, and are then ignored.
type Storage struct {
	// Kind is the driver: filesystem, s3 or gcs.
	Kind string `json:"kind" schema:"required,enum=filesystem|s3|gcs"`
	// Filesystem is a directory, usually a network mount.
	Filesystem *Filesystem `json:"filesystem,omitempty"`
	// S3 is a bucket of Amazon S3, or of a server that speaks its protocol.
	S3 *S3 `json:"s3,omitempty"`
	// GCS is a bucket of Google Cloud Storage.
	GCS *GCS `json:"gcs,omitempty"`
	// KeyFile holds the keys that seal backups, or is a directory with a file for each domain, <domain>.key, and _default.key for all
	// others. It is read whenever a key is needed. Empty leaves backups readable to whoever reads the store.
	KeyFile string `json:"keyFile,omitempty"`
}

// Filesystem is a store in a directory, usually a network mount.
type Filesystem struct {
	// Path of the directory. `ws-daemon archive init --store file://PATH` makes it a store.
	Path string `json:"path" schema:"required"`
}

// S3 is a store in a bucket of Amazon S3, or of a server that speaks its protocol.
type S3 struct {
	// Endpoint is the server, as https://host:port; Amazon's if it is empty.
	Endpoint string `json:"endpoint,omitempty"`
	// Region is that of the bucket; us-east-1 if it is empty.
	Region string `json:"region,omitempty"`
	// Bucket is the bucket's name. It must exist.
	Bucket string `json:"bucket" schema:"required"`
	// Prefix of all keys, so that other things may be in the bucket; may be empty.
	Prefix string `json:"prefix,omitempty"`
	// PathStyle says whether the bucket is in the path of requests, not in the host name. By default it is, but not at Amazon's.
	PathStyle *bool `json:"pathStyle,omitempty"`
	// CAFile has certificates in PEM format that are trusted beside the system's.
	CAFile string `json:"caFile,omitempty"`
	// Credentials say where they come from. Without any they are those that the AWS tools would find.
	Credentials S3Credentials `json:"credentials,omitzero"`
}

// S3Credentials say where credentials come from. At most one of Environment, Directory and File may be set.
type S3Credentials struct {
	// Environment takes them from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and nowhere else.
	Environment bool `json:"environment,omitempty"`
	// Directory is where a Secret is mounted that has the keys access-key-id, secret-access-key and maybe session-token. It is read
	// again when it changes.
	Directory string `json:"directory,omitempty"`
	// File is one as the AWS tools have it. It is read again when it changes.
	File string `json:"file,omitempty"`
	// Profile is the one in File; "default" if it is empty.
	Profile string `json:"profile,omitempty"`
}

// GCS is a store in a bucket of Google Cloud Storage.
type GCS struct {
	// Endpoint is another server, as https://host:port. One without TLS is an emulator, and gets no credentials.
	Endpoint string `json:"endpoint,omitempty"`
	// Bucket is the bucket's name. It must exist.
	Bucket string `json:"bucket" schema:"required"`
	// Prefix of all keys, so that other things may be in the bucket; may be empty.
	Prefix string `json:"prefix,omitempty"`
	// CAFile has certificates in PEM format that are trusted beside the system's.
	CAFile string `json:"caFile,omitempty"`
	// CredentialsFile is a service account's key, or a configuration of workload identity federation. It is read again when it
	// changes. Without it credentials are those of the workload's service account, or of the machine.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// URL returns the store's address as the command line takes it.
func (s Storage) URL() string {
	switch s.Kind {
	case KindS3:
		return s.S3.url()
	case KindGCS:
		return s.GCS.url()
	}
	return (&url.URL{Scheme: "file", Path: s.Filesystem.Path}).String()
}

func (s S3) url() string {
	settings := map[string]string{
		"endpoint": s.Endpoint, "region": s.Region, "ca-file": s.CAFile,
		"credentials-dir": s.Credentials.Directory, "credentials-file": s.Credentials.File, "profile": s.Credentials.Profile,
	}
	if s.PathStyle != nil {
		settings["path-style"] = strconv.FormatBool(*s.PathStyle)
	}
	if s.Credentials.Environment {
		settings["credentials"] = "environment"
	}
	return storeURL("s3", s.Bucket, s.Prefix, settings)
}

func (g GCS) url() string {
	return storeURL("gs", g.Bucket, g.Prefix, map[string]string{
		"endpoint": g.Endpoint, "ca-file": g.CAFile, "credentials-file": g.CredentialsFile,
	})
}

func storeURL(scheme, bucket, prefix string, settings map[string]string) string {
	values := url.Values{}
	for name, value := range settings {
		if value != "" {
			values.Set(name, value)
		}
	}
	return (&url.URL{Scheme: scheme, Host: bucket, Path: "/" + strings.Trim(prefix, "/"), RawQuery: values.Encode()}).String()
}

func (s Storage) validate() error {
	if err := oneOf("storage.kind", s.Kind, KindFilesystem, KindS3, KindGCS); err != nil {
		return err
	}
	return errors.Join(absoluteIfSet("storage.keyFile", s.KeyFile), s.validateGroup())
}

func (s Storage) validateGroup() error {
	switch {
	case s.Kind == KindFilesystem && s.Filesystem != nil:
		return absolute("storage.filesystem.path", s.Filesystem.Path)
	case s.Kind == KindS3 && s.S3 != nil:
		return s.S3.validate()
	case s.Kind == KindGCS && s.GCS != nil:
		return errors.Join(
			required("storage.gcs.bucket", s.GCS.Bucket),
			server("storage.gcs.endpoint", s.GCS.Endpoint),
			absoluteIfSet("storage.gcs.caFile", s.GCS.CAFile),
			absoluteIfSet("storage.gcs.credentialsFile", s.GCS.CredentialsFile),
		)
	}
	return wrong("storage."+s.Kind, "must be set for storage.kind %s", s.Kind)
}

func (s S3) validate() error {
	c := s.Credentials
	kinds := 0
	for _, set := range []bool{c.Environment, c.Directory != "", c.File != ""} {
		if set {
			kinds++
		}
	}
	var errs []error
	if kinds > 1 {
		errs = append(errs, wrong("storage.s3.credentials", "only one of environment, directory and file may be set"))
	}
	if c.Profile != "" && c.File == "" {
		errs = append(errs, wrong("storage.s3.credentials.profile", "needs storage.s3.credentials.file"))
	}
	return errors.Join(append(errs,
		required("storage.s3.bucket", s.Bucket),
		server("storage.s3.endpoint", s.Endpoint),
		absoluteIfSet("storage.s3.caFile", s.CAFile),
		absoluteIfSet("storage.s3.credentials.directory", c.Directory),
		absoluteIfSet("storage.s3.credentials.file", c.File),
	)...)
}

// exampleStorage has every key, of all kinds; the kind says which is used.
func exampleStorage() Storage {
	pathStyle := true
	return Storage{
		Kind:       KindFilesystem,
		Filesystem: &Filesystem{Path: "/mnt/ws-daemon-store"},
		S3: &S3{
			Endpoint: "https://minio.example.com:9000", Region: "us-east-1", Bucket: "workspaces", Prefix: "production", PathStyle: &pathStyle,
			CAFile: "/etc/ws-daemon/store-ca.pem", Credentials: S3Credentials{Directory: "/etc/ws-daemon/store"},
		},
		GCS: &GCS{Bucket: "workspaces", Prefix: "production", CredentialsFile: "/etc/ws-daemon/store/key.json"}, //nolint:gosec // a path
	}
}

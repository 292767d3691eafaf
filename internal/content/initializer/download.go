package initializer

import (
	"context"
	"encoding/json"
	"net/netip"
	"regexp"
	"time"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// DownloadSpec says what to fetch and where to put it.
type DownloadSpec struct {
	// URL of the file, without user name and password.
	URL string
	// Path of the file, relative to the target. With Unpack, the directory to unpack into; "" is the target itself.
	Path string
	// Digest is "sha256:" or "sha512:" and what the whole file must hash to; "" for whatever comes.
	Digest string
	// Unpack treats the file as an archive: tar, tar.gz, tar.zst or zip, as its first bytes say.
	Unpack bool
	// Credentials for exactly the scheme, host and port of URL; nil for none.
	Credentials *Credentials
}

// Download fetches files over HTTP, as the owner of the content, in a sandbox.
//
// What breaks off goes on where it was, if the server can do so and has the same file still. The digest is that of the whole file, as
// it was put down or unpacked.
type Download struct {
	// Sandbox is where files are fetched and unpacked.
	Sandbox *sandbox.Sandbox
	// AllowedSchemes are the URL schemes that may be used, of "https" and "http"; empty means "https".
	AllowedSchemes []string
	// Deny are the networks that must not be connected to, whatever leads there; none lets everything be.
	Deny []netip.Prefix
	// Progress is told the files and bytes that were made, if it is set. It must not block.
	Progress func(files, bytes int64)
	// Stall is how long a server may say nothing; default 30 seconds.
	Stall time.Duration
	// Pause is the first pause before a request is repeated, which then doubles; default half a second.
	Pause time.Duration
}

// downloadOrder is what the task in the sandbox is given.
type downloadOrder struct {
	Deny     []netip.Prefix `json:"deny,omitempty"`
	Spec     DownloadSpec   `json:"spec"`
	Stall    time.Duration  `json:"stall"`
	Pause    time.Duration  `json:"pause"`
	MaxBytes int64          `json:"maxBytes"`
	MaxFiles int64          `json:"maxFiles"`
}

// made is what a task has made so far.
type made struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Run fetches one file into the target.
func (d Download) Run(ctx context.Context, t Target, spec DownloadSpec) (Result, error) {
	if err := d.validate(spec); err != nil {
		return Result{}, err
	}
	if err := prepare(ctx, t); err != nil {
		return Result{}, err
	}
	var out made
	err := d.Sandbox.Run(ctx, sandbox.Job{
		Task: taskDownload, Result: &out, Dir: t.Dir, UID: t.UID, GID: t.GID, Network: true, Progress: d.report,
		Input: downloadOrder{
			d.Deny, spec, orElse(d.Stall, 30*time.Second), orElse(d.Pause, time.Second/2), t.MaxBytes, t.MaxFiles,
		},
	})
	if err != nil {
		return Result{}, outside(ctx, "download "+spec.URL, err)
	}
	return Result{Source: SourceDownload, Files: out.Files, Bytes: out.Bytes}, nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (d Download) report(data json.RawMessage) {
	var m made
	if d.Progress != nil && json.Unmarshal(data, &m) == nil {
		d.Progress(m.Files, m.Bytes)
	}
}

func (d Download) validate(spec DownloadSpec) error {
	if _, err := validateURL("download", spec.URL, known(d.AllowedSchemes)); err != nil {
		return err
	}
	if spec.Path == "" && !spec.Unpack {
		return newError(Invalid, nil, "a download needs the path of the file, or has to be unpacked")
	}
	if err := validatePath("download path", spec.Path); err != nil {
		return err
	}
	if spec.Digest != "" && !regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`).MatchString(spec.Digest) {
		return newError(Invalid, nil, "digest %q is neither sha256: and 64 hexadecimal digits nor sha512: and 128", spec.Digest)
	}
	return validateCredentials(spec.Credentials)
}

// Package config holds the daemon's JSON configuration: its types, its defaults and a strict parser.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Config is the whole file.
type Config struct {
	// Content is what happens to the files of workspaces.
	Content Content `json:"content"`
	// Storage is the object store of backups and snapshots.
	Storage Storage `json:"storage"`
	// Volumes are the kinds of volumes that this node offers.
	Volumes Volumes `json:"volumes"`
	// Limits bound what the daemon does at once.
	Limits Limits `json:"limits"`
	// Node is how the daemon treats the node that it runs on.
	Node Node `json:"node"`
	// Health is the address of /healthz and /readyz.
	Health Address `json:"health"`
	// Metrics is the address of /metrics; empty turns it off.
	Metrics Address `json:"metrics"`
	// Log is what is logged, and how.
	Log Log `json:"log"`
}

// Content is what happens to the files of workspaces.
type Content struct {
	// WorkingArea is the directory of volumes, journal and identity. It must exist.
	WorkingArea string `json:"workingArea"`
	// StrayRetention is how long content whose owner moved on is kept in the store.
	StrayRetention Duration `json:"strayRetention"`
	// OrphanGrace is how long an object must be gone before its volume is removed.
	OrphanGrace Duration `json:"orphanGrace"`
	// TombstoneGrace is how long the backups of a deleted workspace stay.
	TombstoneGrace Duration `json:"tombstoneGrace"`
	// Collect is how packs that no backup needs leave the store.
	Collect Collect `json:"collect"`
	// AdoptCluster lets domains that another cluster made be used.
	AdoptCluster bool `json:"adoptCluster"`
	// Git is how repositories are cloned.
	Git Git `json:"git"`
	// Sandbox is where everything runs that reads hostile content.
	Sandbox Sandbox `json:"sandbox"`
	// Timeouts are the deadlines of the daemon's work.
	Timeouts Timeouts `json:"timeouts"`
}

// Collect is how packs that no backup needs leave the store.
type Collect struct {
	// Delete lets them be removed; without it the daemon only logs how many there are, once a day.
	Delete bool `json:"delete"`
	// Wait is how old a pack must be to be condemned, and how long it then stays, by the store's clock: at least an hour.
	Wait Duration `json:"wait"`
}

// Git is how repositories are cloned.
type Git struct {
	// Program is the git command.
	Program string `json:"program"`
	// AllowedSchemes are the URL schemes that may be cloned.
	AllowedSchemes []string `json:"allowedSchemes"`
}

// Timeouts are the deadlines of the daemon's work. A passed deadline is reported and tried again; it never lets content go.
type Timeouts struct {
	// Store is the deadline of one request to the object store, without the time that its content takes at 64 KiB a second. One that makes
	// no progress for half a minute ends before.
	Store Duration `json:"store"`
	// StoreTotal is how long a request that failed, in a way that may pass, is repeated.
	StoreTotal Duration `json:"storeTotal"`
	// Initialize is the deadline of one attempt to fill a workspace.
	Initialize Duration `json:"initialize"`
	// Backup is the deadline of one attempt to back up, final ones included.
	Backup Duration `json:"backup"`
	// Remove is the deadline of one attempt to remove a volume.
	Remove Duration `json:"remove"`
	// Pods is how long a stopping workspace waits for its pods before it is called stalled.
	Pods Duration `json:"pods"`
	// RetryMax is the longest pause between two attempts.
	RetryMax Duration `json:"retryMax"`
}

// Limits bound what the daemon does at once.
type Limits struct {
	// Initialize is the number of workspaces that are filled at once.
	Initialize int `json:"initialize"`
	// Backup is the number of periodic backups at once.
	Backup int `json:"backup"`
	// FinalBackup is the number of final backups at once; they do not wait for periodic ones.
	FinalBackup int `json:"finalBackup"`
	// Maintain is the number of removals and other small jobs at once.
	Maintain int `json:"maintain"`
	// Store is what all jobs together may ask of the object store.
	Store StoreLimits `json:"store"`
}

// StoreLimits are shared by all jobs of the node. Jobs that somebody waits for (filling a workspace, its final backup) come before
// periodic backups, which leave a quarter of everything to them; of the same kind all workspaces get the same.
type StoreLimits struct {
	// Requests is the number of requests that run at once.
	Requests int `json:"requests"`
	// UploadBytesPerSecond and DownloadBytesPerSecond bound the bytes of objects; 0 is no bound.
	UploadBytesPerSecond   int64 `json:"uploadBytesPerSecond"`
	DownloadBytesPerSecond int64 `json:"downloadBytesPerSecond"`
	// Memory is the number of bytes that the buffers of all jobs take together. Ten backups at once need 512 MiB (536870912); with
	// less, some wait for others.
	Memory int64 `json:"memory"`
}

// Address is where a server listens; empty turns it off.
type Address struct {
	// Address is host:port.
	Address string `json:"address"`
}

// Log is what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `json:"level"`
	// Format is json or console.
	Format string `json:"format"`
}

// Duration is a time span written as people do: "10m", "1h30m".
type Duration struct{ time.Duration }

// UnmarshalJSON reads a quoted duration.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return &durationError{string(data)}
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return &durationError{string(data)}
	}
	d.Duration = parsed
	return nil
}

// durationError names what is no duration, as it stands in the file.
type durationError struct{ text string }

func (e *durationError) Error() string { return `a duration is a text such as "10m", not ` + e.text }

// MarshalJSON writes the duration as UnmarshalJSON reads it.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Default returns the configuration that a file changes.
func Default() Config {
	return Config{
		Content: Content{
			StrayRetention: Duration{30 * 24 * time.Hour},
			OrphanGrace:    Duration{24 * time.Hour},
			TombstoneGrace: Duration{7 * 24 * time.Hour},
			Collect:        Collect{Wait: Duration{24 * time.Hour}},
			Git:            Git{Program: "git", AllowedSchemes: []string{"https"}},
			Timeouts: Timeouts{
				Store:      Duration{time.Minute},
				StoreTotal: Duration{5 * time.Minute},
				Initialize: Duration{time.Hour},
				Backup:     Duration{time.Hour},
				Remove:     Duration{10 * time.Minute},
				Pods:       Duration{10 * time.Minute},
				RetryMax:   Duration{5 * time.Minute},
			},
		},
		Limits: Limits{
			Initialize: 4, Backup: 2, FinalBackup: 4, Maintain: 8,
			Store: StoreLimits{Requests: 64, Memory: 512 << 20},
		},
		Node:    defaultNode(),
		Health:  Address{Address: ":8081"},
		Metrics: Address{Address: "127.0.0.1:9090"},
		Log:     Log{Level: "info", Format: "json"},
	}
}

// Load reads the file, refuses keys it does not know, and validates what it read. Errors name the file and the key.
func Load(file string) (Config, error) {
	data, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

// Parse reads and validates a configuration.
func Parse(data []byte) (Config, error) {
	c := Default()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("line %d: %w", line(data, place(data, err)), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("line %d: more text after the configuration", line(data, dec.InputOffset()))
	}
	return c, c.validate()
}

// place returns where in the file a mistake is. Errors that do not say so name what stands there.
func place(data []byte, err error) int64 {
	var (
		syntax   *json.SyntaxError
		kind     *json.UnmarshalTypeError
		duration *durationError
	)
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset
	case errors.As(err, &kind):
		return kind.Offset
	case errors.As(err, &duration):
		return int64(bytes.Index(data, []byte(duration.text)))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return int64(len(data))
	}
	key, _ := strings.CutPrefix(err.Error(), "json: unknown field ")
	return int64(bytes.Index(data, []byte(key)))
}

func line(data []byte, offset int64) int {
	return bytes.Count(data[:max(0, min(offset, int64(len(data))))], []byte("\n")) + 1
}

func (c Config) validate() error {
	return errors.Join(
		absolute("content.workingArea", c.Content.WorkingArea),
		c.Storage.validate(),
		c.Volumes.validate(),
		c.Limits.validate(),
		c.Node.validate(),
		c.Content.Timeouts.validate(),
		positive("content.strayRetention", c.Content.StrayRetention),
		positive("content.orphanGrace", c.Content.OrphanGrace),
		positive("content.tombstoneGrace", c.Content.TombstoneGrace),
		atLeastAnHour("content.collect.wait", c.Content.Collect.Wait),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "json", "console"),
	)
}

func (l Limits) validate() error {
	var errs []error
	for key, n := range map[string]int{
		"initialize": l.Initialize, "backup": l.Backup, "finalBackup": l.FinalBackup, "maintain": l.Maintain,
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("limits.%s: must be at least 1, not %d", key, n))
		}
	}
	return errors.Join(append(errs, l.Store.validate())...)
}

// The least that one job needs.
const (
	minRequests = 4
	minRate     = 64 << 10
	minMemory   = 128 << 20
)

func (l StoreLimits) validate() error {
	return errors.Join(
		atLeast("limits.store.requests", int64(l.Requests), minRequests, ""),
		atLeast("limits.store.memory", l.Memory, minMemory, " bytes"),
		rate("limits.store.uploadBytesPerSecond", l.UploadBytesPerSecond),
		rate("limits.store.downloadBytesPerSecond", l.DownloadBytesPerSecond),
	)
}

func rate(key string, perSecond int64) error {
	if perSecond == 0 {
		return nil
	}
	return atLeast(key, perSecond, minRate, ", or 0 for no limit")
}

func atLeast(key string, n, least int64, unit string) error {
	if n < least {
		return fmt.Errorf("%s: must be at least %d%s, not %d", key, least, unit, n)
	}
	return nil
}

func (t Timeouts) validate() error {
	return errors.Join(
		positive("content.timeouts.store", t.Store),
		positive("content.timeouts.storeTotal", t.StoreTotal),
		positive("content.timeouts.initialize", t.Initialize),
		positive("content.timeouts.backup", t.Backup),
		positive("content.timeouts.remove", t.Remove),
		positive("content.timeouts.pods", t.Pods),
		positive("content.timeouts.retryMax", t.RetryMax),
	)
}

func absolute(key, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s: must be an absolute path, not %q", key, path)
	}
	return nil
}

func positive(key string, d Duration) error {
	if d.Duration <= 0 {
		return fmt.Errorf("%s: must be longer than 0s, not %s", key, d)
	}
	return nil
}

func atLeastAnHour(key string, d Duration) error {
	if d.Duration < time.Hour {
		return fmt.Errorf("%s: must be at least 1h, not %s", key, d)
	}
	return nil
}

func oneOf(key, value string, allowed ...string) error {
	if !slices.Contains(allowed, value) {
		return fmt.Errorf("%s: must be one of %q, not %q", key, allowed, value)
	}
	return nil
}

// Example returns a valid configuration with every key set.
func Example() Config {
	c := Default()
	c.Content.WorkingArea = "/var/lib/ws-daemon"
	c.Storage = exampleStorage()
	c.Volumes.Classes = map[string]Class{
		"default": {Driver: DriverDirectory, Path: "/var/lib/ws-daemon/volumes/default", AllowUnlimited: true},
		"limited": {Driver: DriverQuota, Path: "/mnt/workspaces/volumes", Projects: &Projects{First: 200_000, Last: 299_999}},
	}
	return c
}

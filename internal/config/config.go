// Package config holds the daemon's JSON configuration: its types and defaults, a strict parser, and what takes changes of the
// file over while the daemon runs.
//
// The comments of the types are what users read: the reference in docs/operations.md and the schema are generated from them. A
// field tagged `reload:"live"` is taken over without a restart.
package config

import "time"

// Config is the whole file.
type Config struct {
	// Schema may name a JSON schema, for editors. The daemon does not read it.
	Schema string `json:"$schema,omitempty"`
	// Content is what happens to the files of workspaces.
	Content Content `json:"content" schema:"required"`
	// Storage is the object store of backups and snapshots.
	Storage Storage `json:"storage" schema:"required"`
	// Volumes are the kinds of volumes that this node offers.
	Volumes Volumes `json:"volumes" schema:"required"`
	// CSI is how pods get workspaces as volumes.
	CSI CSI `json:"csi"`
	// Limits bound what the daemon does at once.
	Limits Limits `json:"limits"`
	// Node is how the daemon treats the node that it runs on.
	Node Node `json:"node" reload:"live"`
	// Service is the daemon's gRPC service, and who may use it.
	Service Service `json:"service"`
	// Health is the address of /healthz and /readyz.
	Health Address `json:"health"`
	// Metrics is where Prometheus finds /metrics, and who may read it.
	Metrics Metrics `json:"metrics"`
	// Log is what is logged, and how.
	Log Log `json:"log"`
}

// Content is what happens to the files of workspaces.
type Content struct {
	// WorkingArea is the directory of volumes, journal and identity. It must exist.
	WorkingArea string `json:"workingArea" schema:"required"`
	// Backup is how content is backed up if its workspace does not say.
	Backup Backup `json:"backup"`
	// StrayRetention is how long content whose owner moved on is kept in the store.
	StrayRetention Duration `json:"strayRetention" reload:"live"`
	// OrphanGrace is how long an object must be gone before its volume is removed.
	OrphanGrace Duration `json:"orphanGrace" reload:"live"`
	// TombstoneGrace is how long the backups of a deleted workspace stay.
	TombstoneGrace Duration `json:"tombstoneGrace" reload:"live"`
	// Collect is how packs that no backup needs leave the store.
	Collect Collect `json:"collect"`
	// AdoptCluster lets domains that another cluster made be used.
	AdoptCluster bool `json:"adoptCluster"`
	// Git is how repositories are cloned.
	Git Git `json:"git"`
	// Egress is where git and downloads must not connect to.
	Egress Egress `json:"egress"`
	// Sandbox is where everything runs that reads hostile content.
	Sandbox Sandbox `json:"sandbox"`
	// Timeouts are the deadlines of the daemon's work.
	Timeouts Timeouts `json:"timeouts"`
}

// Backup is how content is backed up if its workspace does not say.
type Backup struct {
	// Interval is the time between periodic backups of a workspace without spec.backup.interval: from 1s to 7d, or "0s" for none.
	Interval Duration `json:"interval" reload:"live"`
}

// Collect is how packs that no backup needs leave the store.
type Collect struct {
	// Delete lets them be removed; without it the daemon only logs how many there are, once a day.
	Delete bool `json:"delete" reload:"live"`
	// Wait is how old a pack must be to be condemned, and how long it then stays, by the store's clock: at least an hour.
	Wait Duration `json:"wait" reload:"live"`
}

// Git is how repositories are cloned.
type Git struct {
	// Program is the git command.
	Program string `json:"program"`
	// AllowedSchemes are the URL schemes that may be cloned and, of https and http, downloaded.
	AllowedSchemes []string `json:"allowedSchemes" schema:"enum=https|http|ssh"`
}

// Timeouts are the deadlines of the daemon's work. A passed deadline is reported and tried again; it never lets content go.
type Timeouts struct {
	// Store is the deadline of one request to the object store, without the time that its content takes at 64 KiB a second. One that makes
	// no progress for half a minute ends before.
	Store Duration `json:"store" reload:"live"`
	// StoreTotal is how long a request that failed, in a way that may pass, is repeated.
	StoreTotal Duration `json:"storeTotal" reload:"live"`
	// Initialize is the deadline of one attempt to fill a workspace.
	Initialize Duration `json:"initialize" reload:"live"`
	// Backup is the deadline of one attempt to back up, final ones included.
	Backup Duration `json:"backup" reload:"live"`
	// Remove is the deadline of one attempt to remove a volume.
	Remove Duration `json:"remove" reload:"live"`
	// Pods is how long a stopping workspace waits for its pods before it is called stalled.
	Pods Duration `json:"pods" reload:"live"`
	// RetryMax is the longest pause between two attempts.
	RetryMax Duration `json:"retryMax" reload:"live"`
}

// Limits bound what the daemon does at once.
type Limits struct {
	// Initialize is the number of workspaces that are filled by their initializers at once; as many are restored meanwhile.
	Initialize int `json:"initialize" reload:"live" schema:"min=1"`
	// Backup is the number of periodic backups at once.
	Backup int `json:"backup" reload:"live" schema:"min=1"`
	// FinalBackup is the number of final backups at once; they do not wait for periodic ones. One that has waited for a minute, because
	// the store crawls, is made beside the others, as long as there are at most three times as many.
	FinalBackup int `json:"finalBackup" reload:"live" schema:"min=1"`
	// Maintain is the number of removals and other small jobs at once.
	Maintain int `json:"maintain" reload:"live" schema:"min=1"`
	// Store is what all jobs together may ask of the object store.
	Store StoreLimits `json:"store"`
}

// StoreLimits are shared by all jobs of the node. Jobs that somebody waits for (filling a workspace, its final backup) come before
// periodic backups, which leave a quarter of everything to them; of the same kind all workspaces get the same.
type StoreLimits struct {
	// Requests is the number of requests that run at once.
	Requests int `json:"requests" reload:"live" schema:"min=4"`
	// UploadBytesPerSecond bounds the bytes of objects that are written, "50Mi" for example; "0" is no bound. It is an average: each object, of
	// 32 MiB at most, waits for its turn and then goes as fast as it can.
	UploadBytesPerSecond Size `json:"uploadBytesPerSecond" reload:"live"`
	// DownloadBytesPerSecond bounds the bytes of objects that are read; "0" is no bound.
	DownloadBytesPerSecond Size `json:"downloadBytesPerSecond" reload:"live"`
	// Memory is what the buffers of all jobs take together. Ten backups at once need "512Mi"; with less, some wait for others.
	Memory Size `json:"memory"`
}

// Address is where a server listens.
type Address struct {
	// Address is host:port; empty turns the server off.
	Address string `json:"address"`
}

// Metrics is where Prometheus finds /metrics, and who may read it. On an address of this machine alone (127.0.0.1, ::1, localhost)
// everybody there may. On any other it is served by TLS 1.3, and only to those whom the API server knows by their token and
// allows to get the URL /metrics.
type Metrics struct {
	// Address is host:port; empty turns the server off.
	Address string `json:"address"`
	// CertFile is a certificate in PEM format, read again when it changes. Without it the daemon signs one itself at each start.
	CertFile string `json:"certFile,omitempty"`
	// KeyFile is the key of the certificate, in PEM format.
	KeyFile string `json:"keyFile,omitempty"`
}

// Log is what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `json:"level" reload:"live" schema:"enum=debug|info|warn|error"`
	// Format is json or console.
	Format string `json:"format" schema:"enum=json|console"`
}

// Default returns the configuration that a file changes.
func Default() Config {
	return Config{
		Content: Content{
			Backup:         Backup{Interval: Duration{10 * time.Minute}},
			StrayRetention: Duration{30 * 24 * time.Hour},
			OrphanGrace:    Duration{24 * time.Hour},
			TombstoneGrace: Duration{7 * 24 * time.Hour},
			Collect:        Collect{Wait: Duration{24 * time.Hour}},
			Git:            Git{Program: "git", AllowedSchemes: []string{"https"}},
			Egress:         defaultEgress(),
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
		CSI: CSI{RegistrationDir: "/var/lib/kubelet/plugins_registry", KubeletDir: "/var/lib/kubelet"},
		Limits: Limits{
			Initialize: 4, Backup: 2, FinalBackup: 4, Maintain: 8,
			Store: StoreLimits{Requests: 64, Memory: 512 << 20},
		},
		Node:    defaultNode(),
		Service: defaultService(),
		Health:  Address{Address: ":8081"},
		Metrics: Metrics{Address: "127.0.0.1:9090"},
		Log:     Log{Level: "info", Format: "json"},
	}
}

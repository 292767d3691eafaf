package v1

// Initializer is one way to fill a new workspace.
// +kubebuilder:validation:ExactlyOneOf=empty;git;backup;snapshot;prebuild;download;composite
type Initializer struct {
	// empty starts with an empty directory.
	// +optional
	Empty *EmptyInitializer `json:"empty,omitempty"`

	// git clones a repository.
	// +optional
	Git *GitInitializer `json:"git,omitempty"`

	// backup demands that there is a backup of this workspace: none is an error, not an empty start.
	// +optional
	Backup *BackupInitializer `json:"backup,omitempty"`

	// snapshot starts from a snapshot of any workspace of the same domain.
	// +optional
	Snapshot *SnapshotInitializer `json:"snapshot,omitempty"`

	// prebuild starts from a snapshot and brings its repositories up to date.
	// +optional
	Prebuild *PrebuildInitializer `json:"prebuild,omitempty"`

	// download fetches a file, and unpacks it on request.
	// +optional
	Download *DownloadInitializer `json:"download,omitempty"`

	// composite does several of these, in order. What restores a snapshot comes first: it needs an empty directory.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.filter(s, has(s.snapshot) || has(s.prebuild)).size() <= (has(self[0].snapshot) || has(self[0].prebuild) ? 1 : 0)",message="only the first step may restore a snapshot or prebuild: it needs an empty directory"
	Composite []InitializerStep `json:"composite,omitempty"`
}

// InitializerStep is one step of several.
// +kubebuilder:validation:ExactlyOneOf=git;snapshot;prebuild;download
type InitializerStep struct {
	// git clones a repository.
	// +optional
	Git *GitInitializer `json:"git,omitempty"`

	// snapshot starts from a snapshot of any workspace of the same domain.
	// +optional
	Snapshot *SnapshotInitializer `json:"snapshot,omitempty"`

	// prebuild starts from a snapshot and brings its repositories up to date.
	// +optional
	Prebuild *PrebuildInitializer `json:"prebuild,omitempty"`

	// download fetches a file, and unpacks it on request.
	// +optional
	Download *DownloadInitializer `json:"download,omitempty"`
}

// EmptyInitializer has no settings.
type EmptyInitializer struct{}

// BackupInitializer has no settings.
type BackupInitializer struct{}

// GitInitializer clones a repository.
type GitInitializer struct {
	// url is where the repository is: https, or another scheme that the daemon's configuration allows. It must not hold
	// credentials; they belong in a Secret that authSecretRef names. One of ssh may name a user.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^(https?://|ssh://([A-Za-z0-9_][A-Za-z0-9._-]*@)?)[^\s/?#@]+(/[^\s?#]*)?$`
	URL string `json:"url"`

	// target is what is checked out. Without one, the branch that the remote's HEAD names.
	// +optional
	Target *GitTarget `json:"target,omitempty"`

	// checkoutLocation is the directory of the working copy, below the content's root; the root itself if empty.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && self.split('/').all(p, p != '..' && p != '.git')",message="checkoutLocation must be a relative path without '..' or '.git'"
	CheckoutLocation string `json:"checkoutLocation,omitempty"`

	// depth is how many commits of history are fetched. Everything, of all branches, if absent.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Depth *int32 `json:"depth,omitempty"`

	// filter leaves the content of files in the server until it is needed: "blob:none", or "blob:limit=" and a size ("1m") for
	// larger ones only. What is needed later, the workspace's own git fetches, with its own credentials.
	// +optional
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^blob:(none|limit=[0-9]{1,9}[kmg]?)$`
	Filter string `json:"filter,omitempty"`

	// sparse lists the directories to check out, besides the files of the root. All if absent.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:items:Pattern=`^[^-/*?\[\]\\!#\s][^*?\[\]\\!#]*$`
	Sparse []string `json:"sparse,omitempty"`

	// submodules checks out submodules as well, and theirs.
	// +optional
	Submodules bool `json:"submodules,omitempty"`

	// lfs fetches the files that the repository keeps in Git LFS.
	// +optional
	LFS bool `json:"lfs,omitempty"`

	// authSecretRef names a Secret of this namespace with the keys "username" and "password", or "token", or "bearerToken", or, for
	// ssh, "ssh-privatekey" and "known_hosts". It is used for the host and port of the url only.
	// +optional
	AuthSecretRef *SecretReference `json:"authSecretRef,omitempty"`
}

// GitTarget is what is checked out.
// +kubebuilder:validation:ExactlyOneOf=branch;localBranch;commit
type GitTarget struct {
	// branch is a branch of the remote. It must exist.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^-\s~^:?*\[\\][^\s~^:?*\[\\]*$`
	Branch string `json:"branch,omitempty"`

	// localBranch is a new branch, made from the remote's HEAD.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^-\s~^:?*\[\\][^\s~^:?*\[\\]*$`
	LocalBranch string `json:"localBranch,omitempty"`

	// commit is a full commit id; HEAD is detached.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^([0-9a-f]{40}|[0-9a-f]{64})$`
	Commit string `json:"commit,omitempty"`
}

// SecretReference names a Secret of the same namespace.
type SecretReference struct {
	// name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9][-a-z0-9.]*$`
	Name string `json:"name"`
}

// SnapshotInitializer names a snapshot.
// +kubebuilder:validation:ExactlyOneOf=name;id
type SnapshotInitializer struct {
	// name of a Snapshot object of this namespace.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// id of a snapshot in the store (status.snapshotID), stray snapshots included.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9][-a-zA-Z0-9._]*$`
	ID string `json:"id,omitempty"`
}

// PrebuildInitializer starts from a snapshot in which repositories were cloned and built, and brings these up to date: what is new is
// fetched, and the target checked out over what there is. Files that git does not know stay. Where the snapshot does not exist any more,
// the repositories are cloned, and the report says so.
type PrebuildInitializer struct {
	// snapshot to start from.
	Snapshot SnapshotInitializer `json:"snapshot"`

	// git lists the repositories, by their checkoutLocation. One that is not in the snapshot is cloned.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Git []GitInitializer `json:"git"`
}

// DownloadInitializer fetches a file over HTTP.
// +kubebuilder:validation:XValidation:rule="has(self.path) || (has(self.unpack) && self.unpack)",message="path is needed, unless the file is unpacked"
type DownloadInitializer struct {
	// url of the file: https, or another scheme that the daemon's configuration allows. It must not hold credentials.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://[^\s/?#@]+(/[^\s#]*)?$`
	URL string `json:"url"`

	// path of the file below the content's root. With unpack, the directory to unpack into; the root itself if absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && self.split('/').all(p, p != '..')",message="path must be a relative path without '..'"
	Path string `json:"path,omitempty"`

	// digest of the whole file: "sha256:" or "sha512:" and hexadecimal digits. Whatever comes is taken if absent.
	// +optional
	// +kubebuilder:validation:MaxLength=135
	// +kubebuilder:validation:Pattern=`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`
	Digest string `json:"digest,omitempty"`

	// unpack takes the file for an archive: tar, tar.gz, tar.zst or zip, as its first bytes say.
	// +optional
	Unpack bool `json:"unpack,omitempty"`

	// authSecretRef names a Secret of this namespace with the keys "username" and "password", or "token", or "bearerToken". It is used
	// for the host and port of the url only.
	// +optional
	AuthSecretRef *SecretReference `json:"authSecretRef,omitempty"`
}

package v1

// Conditions of a Workspace. A Snapshot has Ready, Stalled and NodeGone; a WorkspaceNode Ready, DiskPressure, SafeToRemove, Stalled, Sandboxed,
// StoreAvailable and ConfigReloadPending.
const (
	// ConditionReady is True (reason Running) when volume and content are usable and nobody wants them to stop. Its reason is
	// the one word for people in `kubectl get ws`: that of VolumeReady or ContentReady while one of them is not True, or
	// Stopping, Stopped, Deleting. No other condition makes it False.
	ConditionReady = "Ready"
	// ConditionVolumeReady is True when the volume exists, is mounted, and its limit is enforced (reason Unlimited where the
	// class allows a volume without a limit).
	ConditionVolumeReady = "VolumeReady"
	// ConditionContentReady is True when the initializer or restore is finished and the marker on disk agrees.
	ConditionContentReady = "ContentReady"
	// ConditionBackedUp is True when the content was compared with the newest backup within twice the interval. It stays True
	// while Stopped.
	ConditionBackedUp = "BackedUp"
	// ConditionFinalBackup is True when the last backup, which its message names, is committed and read back. It is a report
	// for people, nothing is decided by it, and it is gone while Running.
	ConditionFinalBackup = "FinalBackup"
	// ConditionLimitsApplied is True when all limits of the spec are in force. It is absent without limits, unless the content
	// has got round that of its volume.
	ConditionLimitsApplied = "LimitsApplied"
	// ConditionStalled is True when no retry helps until someone changes something. It is absent otherwise.
	ConditionStalled = "Stalled"
	// ConditionNodeGone is True on a Workspace or Snapshot while the node that is responsible for it is not in the cluster: the one that
	// holds the content, else the one that spec.nodeName names. A Snapshot has it as well while its node is not ready, or none is that could
	// make it. The cluster controller sets it, and it is absent otherwise.
	ConditionNodeGone = "NodeGone"
	// ConditionDiskPressure is True on a node on which a disk has too little room: a volume class that lies on it takes no new
	// workspaces, and none does if it is that of the working area.
	ConditionDiskPressure = "DiskPressure"
	// ConditionSafeToRemove is True on a node of which every content is backed up or released.
	ConditionSafeToRemove = "SafeToRemove"
	// ConditionStoreAvailable is True on a node whose requests the object store answers. While it is False, content stays on the node
	// and everything else goes on.
	ConditionStoreAvailable = "StoreAvailable"
	// ConditionConfigReloadPending is True on a node whose daemon does not run what its configuration file says: some of it needs a
	// restart, or the file is not valid.
	ConditionConfigReloadPending = "ConfigReloadPending"
)

// Reasons of Ready.
const (
	// ReasonRunning means that the workspace is usable.
	ReasonRunning = "Running"
	// ReasonPending means that no node has been chosen, or that the node's daemon has not begun.
	ReasonPending = "Pending"
	// ReasonWaitingForRelease means that another node still holds the content.
	ReasonWaitingForRelease = "WaitingForRelease"
	// ReasonStopping means that the content is being backed up and released.
	ReasonStopping = "Stopping"
	// ReasonStopped means that no node holds the content.
	ReasonStopped = "Stopped"
	// ReasonDeleting means that the object is being deleted.
	ReasonDeleting = "Deleting"
	// ReasonPaused means that the paused annotation stops all work on the workspace.
	ReasonPaused = "Paused"
)

// Reasons of VolumeReady.
const (
	// ReasonProvisioned means that the volume exists and its limit is enforced.
	ReasonProvisioned = "Provisioned"
	// ReasonUnlimited means that the volume exists and nothing limits it, as its class allows.
	ReasonUnlimited = "Unlimited"
	// ReasonProvisioning means that the volume is being made.
	ReasonProvisioning = "Provisioning"
	// ReasonResizing means that the volume is being grown.
	ReasonResizing = "Resizing"
	// ReasonInsufficientCapacity means that the node has no room for the volume.
	ReasonInsufficientCapacity = "InsufficientCapacity"
	// ReasonQuotaUnsupported means that the limit cannot be enforced and the class does not allow going without.
	ReasonQuotaUnsupported = "QuotaUnsupported"
	// ReasonVolumeGroupNotFound means that the class's volume group is missing.
	ReasonVolumeGroupNotFound = "VolumeGroupNotFound"
	// ReasonUnknownClass means that the daemon's configuration has no such volume class.
	ReasonUnknownClass = "UnknownClass"
	// ReasonContentLost means that the content that should be on the node's disk is not there.
	ReasonContentLost = "ContentLost"
	// ReasonForeignContent means that something that is not the workspace's content lies in its place.
	ReasonForeignContent = "ForeignContent"
	// ReasonAreaMissing means that the node's working area is not the one the workspace lies on: not mounted, or swapped.
	ReasonAreaMissing = "AreaMissing"
	// ReasonProvisionFailed means that the volume could not be made; it is tried again.
	ReasonProvisionFailed = "ProvisionFailed"
)

// Reasons of ContentReady.
const (
	// ReasonContentReady means that the content is complete.
	ReasonContentReady = "ContentReady"
	// ReasonInitializing means that the initializer is at work.
	ReasonInitializing = "Initializing"
	// ReasonRestoring means that a backup or snapshot is being restored.
	ReasonRestoring = "Restoring"
	// ReasonCloneFailed means that the repository could not be cloned.
	ReasonCloneFailed = "CloneFailed"
	// ReasonRestoreFailed means that the backup or snapshot could not be restored.
	ReasonRestoreFailed = "RestoreFailed"
	// ReasonUnauthorized means that credentials are missing or refused.
	ReasonUnauthorized = "Unauthorized"
	// ReasonNoBackup means that a backup or snapshot that must exist is not in the store.
	ReasonNoBackup = "NoBackup"
	// ReasonTimedOut means that the work took longer than its deadline; it is tried again.
	ReasonTimedOut = "TimedOut"
	// ReasonStoreUnavailable means that the object store cannot be reached or is not the one that was used before.
	ReasonStoreUnavailable = "StoreUnavailable"
	// ReasonInitializeFailed means that the initializer failed for another reason.
	ReasonInitializeFailed = "InitializeFailed"
)

// Reasons of BackedUp and FinalBackup.
const (
	// ReasonUpToDate means that the content equalled the newest backup when it was last looked at.
	ReasonUpToDate = "UpToDate"
	// ReasonCommitted means that the final backup is in the store and was read back.
	ReasonCommitted = "Committed"
	// ReasonBackingUp means that a backup is being made.
	ReasonBackingUp = "BackingUp"
	// ReasonNoBackupYet means that there has been no backup.
	ReasonNoBackupYet = "NoBackupYet"
	// ReasonUploadFailed means that the store refused or lost a request; it is tried again.
	ReasonUploadFailed = "UploadFailed"
	// ReasonIncomplete means that some files could not be read; the message names them.
	ReasonIncomplete = "Incomplete"
	// ReasonFenced means that another node has taken the workspace over.
	ReasonFenced = "Fenced"
	// ReasonBackingOff means that the last attempt failed and the next one waits.
	ReasonBackingOff = "BackingOff"
	// ReasonDisabled means that periodic backups are turned off.
	ReasonDisabled = "Disabled"
	// ReasonOverdue means that the last look at the content is longer ago than twice the interval.
	ReasonOverdue = "Overdue"
	// ReasonWaitingForPods means that pods still use the workspace.
	ReasonWaitingForPods = "WaitingForPods"
	// ReasonNothingToBackUp means that the content was never finished.
	ReasonNothingToBackUp = "NothingToBackUp"
	// ReasonDiscarded means that the spec, or a person, gave up unsaved changes.
	ReasonDiscarded = "Discarded"
)

// Reasons of LimitsApplied and Stalled.
const (
	// ReasonNotSupported means that this version of the daemon cannot do what the spec asks for.
	ReasonNotSupported = "NotSupported"
	// ReasonFailed means that an attempt failed.
	ReasonFailed = "Failed"
	// ReasonQuotaEscaped means that content lies outside its quota.
	ReasonQuotaEscaped = "QuotaEscaped"
	// ReasonInvalidSpec means that the spec cannot be fulfilled as it is.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonRemoving means that released content has not left the disk yet.
	ReasonRemoving = "Removing"
	// ReasonInUse means that a process uses the content, or that the node holds workspaces that people may be using.
	ReasonInUse = "InUse"
	// ReasonPodsRemain means that pods did not go away before the deadline; the content stays.
	ReasonPodsRemain = "PodsRemain"
)

// Reasons of NodeGone.
const (
	// ReasonNodeDeleted means that the Node which holds the content was deleted. If it is dead, spec.fencedNode lets another one go on from
	// the newest backup.
	ReasonNodeDeleted = "NodeDeleted"
	// ReasonNodeReplaced means that the Node which holds the content was deleted, and that there is another one of that name, whose daemon
	// has not reported.
	ReasonNodeReplaced = "NodeReplaced"
	// ReasonNodeNotFound means that there is no Node of the name in spec.nodeName. It holds nothing.
	ReasonNodeNotFound = "NodeNotFound"
	// ReasonNodeNotReady means that the Node which is to make or remove a Snapshot is in the cluster, and not ready.
	ReasonNodeNotReady = "NodeNotReady"
	// ReasonNoNodeReady means that a Snapshot names no node, and that none is ready whose daemon serves workspaces.
	ReasonNoNodeReady = "NoNodeReady"
)

// Reasons of StoreAvailable and ConfigReloadPending, beside StoreUnavailable.
const (
	// ReasonStoreAnswers means that the object store answered the last request.
	ReasonStoreAnswers = "StoreAnswers"
	// ReasonConfigCurrent means that the daemon runs what its configuration file says.
	ReasonConfigCurrent = "ConfigCurrent"
	// ReasonRestartNeeded means that the keys that the message names are taken over by a restart of the daemon.
	ReasonRestartNeeded = "RestartNeeded"
	// ReasonConfigInvalid means that the configuration file is refused; the daemon runs on with what it had.
	ReasonConfigInvalid = "ConfigInvalid"
)

// Reasons of a Snapshot's Ready condition, beside those above.
const (
	// ReasonSnapshotted means that the snapshot can be restored.
	ReasonSnapshotted = "Snapshotted"
	// ReasonSnapshotting means that the snapshot is being made.
	ReasonSnapshotting = "Snapshotting"
	// ReasonWorkspaceNotFound means that there is no such workspace and no backup of it.
	ReasonWorkspaceNotFound = "WorkspaceNotFound"
)

// Reasons of a WorkspaceNode's conditions, beside those above.
const (
	// ReasonEnoughRoom means that no disk is short of anything.
	ReasonEnoughRoom = "EnoughRoom"
	// ReasonReadOnly means that nothing can be written to a disk.
	ReasonReadOnly = "ReadOnly"
	// ReasonUnusable means that a volume class cannot be used; the message has the words of who refused it.
	ReasonUnusable = "Unusable"
	// ReasonTooManyOrphans means that more volumes without an object are due for removal than may go in an hour: none goes.
	ReasonTooManyOrphans = "TooManyOrphans"
)

// Reasons of events that are not reasons of a condition.
const (
	// EventClaimed tells that the node took the workspace over.
	EventClaimed = "Claimed"
	// EventRestored tells that content came back from the store.
	EventRestored = "Restored"
	// EventInitialized tells that new content is ready.
	EventInitialized = "Initialized"
	// EventAdopted tells that content on the node was kept.
	EventAdopted = "Adopted"
	// EventBackedUp tells that a backup was committed.
	EventBackedUp = "BackedUp"
	// EventNodeGone tells that an object was let go whose node is gone, and what is lost.
	EventNodeGone = "NodeGone"
	// EventReleased tells that the node gave the workspace up.
	EventReleased = "Released"
	// EventStraySnapshot tells that content whose owner moved on was kept.
	EventStraySnapshot = "StraySnapshot"
	// EventFork tells that a former owner committed after the take-over; its commit is kept.
	EventFork = "Fork"
	// EventBackupLost tells that the store lost a backup.
	EventBackupLost = "BackupLost"
	// EventEvicted tells that caches went because their room was needed.
	EventEvicted = "Evicted"
	// EventOrphan tells that a volume without an object is being removed.
	EventOrphan = "Orphan"
	// EventNodeMarked tells that the taint or the annotation against scale-down was set on the Node, or removed.
	EventNodeMarked = "NodeMarked"
	// EventConfigReloaded tells that a changed configuration was taken over, as far as that goes without a restart.
	EventConfigReloaded = "ConfigReloaded"
)

// Annotations by which a person decides. Each is good for the one thing it names.
const (
	// AnnotationDiscard gives up unsaved changes under the claim it names.
	AnnotationDiscard = "workspace.wsdaemon.dev/discard"
	// AnnotationAcceptIncomplete accepts the incomplete backup it names as the final one.
	AnnotationAcceptIncomplete = "workspace.wsdaemon.dev/accept-incomplete"
	// AnnotationAcceptLost accepts that the content of the claim it names is lost; the newest backup is restored.
	AnnotationAcceptLost = "workspace.wsdaemon.dev/accept-lost"
	// AnnotationPaused stops all work on the workspace while it is present.
	AnnotationPaused = "workspace.wsdaemon.dev/paused"
	// AnnotationRemoveOrphans of a WorkspaceNode lets those volumes go whose objects were missed at the time that it names, or
	// before.
	AnnotationRemoveOrphans = "workspace.wsdaemon.dev/remove-orphans"
)

// What the daemon writes on its Node.
const (
	// TaintDiskPressure keeps pods that do not tolerate it from a node under pressure, with the effect NoSchedule, if the daemon's
	// configuration wants that.
	TaintDiskPressure = "workspace.wsdaemon.dev/disk-pressure"
	// AnnotationScaleDown tells the cluster autoscaler to keep the node. The daemon sets it while content is not backed up.
	AnnotationScaleDown = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
	// AnnotationScaleDownOurs says that it was the daemon who set AnnotationScaleDown: it never removes what others have set.
	AnnotationScaleDownOurs = "workspace.wsdaemon.dev/scale-down-disabled"
)

const (
	// LabelWorkspace on a Pod names the workspace, of the Pod's namespace, that it uses.
	LabelWorkspace = "workspace.wsdaemon.dev/workspace"
	// CSIDriver is the driver of a Pod's inline volume that is a workspace.
	CSIDriver = "workspace.wsdaemon.dev"
	// CSIAttributeWorkspace is the attribute of such a volume that names the workspace, in the Pod's namespace.
	CSIAttributeWorkspace = "workspace"
	// FinalizerContent keeps an object until its content is safe or given up.
	FinalizerContent = "workspace.wsdaemon.dev/content"
	// FieldOwner of every write by a daemon.
	FieldOwner = "ws-daemon"
	// FieldOwnerFleet is that of every write by the cluster controller.
	FieldOwnerFleet = "ws-daemon-controller"
)

// What a WorkspaceNode says of the sandbox in which hostile content is read.
const (
	// ConditionSandboxed is True on a node whose sandbox has all its protections.
	ConditionSandboxed = "Sandboxed"
	// ReasonProtected means that nothing is missing.
	ReasonProtected = "Protected"
	// ReasonProtectionsMissing means that the kernel or the container denies some protections; the message names them.
	ReasonProtectionsMissing = "ProtectionsMissing"
)

// What a WorkspaceNode says of the git that clones repositories.
const (
	// ConditionGitCurrent is True on a node whose git has a version in which its project has fixed what is known. It has no effect.
	ConditionGitCurrent = "GitCurrent"
	// ReasonGitCurrent means that the version has all fixes.
	ReasonGitCurrent = "GitCurrent"
	// ReasonGitOld means that the version is older. The distribution may have fixed it all the same; its changelog tells.
	ReasonGitOld = "GitOld"
	// ReasonGitUnusable means that git cannot be run, or says nothing that is understood.
	ReasonGitUnusable = "GitUnusable"
)

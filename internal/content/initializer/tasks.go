package initializer

import "wsdaemon.dev/ws-daemon/internal/content/sandbox"

// The names of what runs in the sandbox.
const (
	taskGit      = "git"
	taskUpdate   = "update"
	taskDownload = "download"
	taskStatus   = "status"
	taskVersion  = "version"
)

// Enter makes this process a sandbox, or a program that git needs in one, if it was started to be that, and then never returns. Every program that fills workspaces calls
// it first of all.
func Enter() {
	enterSSH()
	enterNarrow()
	sandbox.Enter(map[string]sandbox.Task{
		taskGit: gitTask, taskUpdate: updateTask, taskDownload: downloadTask, taskStatus: statusTask, taskVersion: versionTask,
	})
}

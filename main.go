// Command ws-daemon keeps the files of workspaces on the local disk of Kubernetes nodes.
package main

import (
	"os"

	"wsdaemon.dev/ws-daemon/internal/cmd"
)

func main() {
	os.Exit(cmd.Execute())
}

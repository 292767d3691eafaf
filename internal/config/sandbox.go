package config

// Sandbox is where everything runs that reads hostile content: git, for example.
type Sandbox struct {
	// Required refuses to start the daemon where a protection of the sandbox is missing. Without it, a condition of the WorkspaceNode
	// and a metric name what is missing.
	Required bool `json:"required"`
}

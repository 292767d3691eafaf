package cluster

// auditPolicy has all requests recorded that pods of ws-daemon-system make, by who made them, verb and resource.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts:ws-daemon-system"]
- level: None
`

func (c *Cluster) writeAuditPolicy() error {
	return writeFiles(map[string][]byte{c.path("audit.yaml"): []byte(auditPolicy)})
}

// AuditLog gives the path of a file with a line for each request that a pod in the namespace ws-daemon-system has made: an Event of
// audit.k8s.io/v1, as JSON.
func (c *Cluster) AuditLog() string { return c.path("audit.log") }

package server

import (
	"slices"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// policy is what callers from the network may do, by the configuration as it is now. Whatever no right names is refused.
type policy struct{ config.Service }

// allows says whether a caller may call a method for a namespace; for any at all, if the namespace is empty.
func (p *policy) allows(c *caller, method, namespace string) bool {
	if c.local {
		return true
	}
	return slices.ContainsFunc(p.Rights, func(r config.Right) bool {
		return slices.Contains(c.subjects, r.Subject) && has(r.Methods, method) && (namespace == "" || has(r.Namespaces, namespace))
	})
}

func has(allowed []string, one string) bool {
	return slices.Contains(allowed, config.Everything) || slices.Contains(allowed, one)
}

package config

import (
	"errors"
	"net/netip"
)

// Sandbox is where everything runs that reads hostile content: git, for example.
type Sandbox struct {
	// Required refuses to start the daemon where a protection of the sandbox is missing. Without it, a condition of the WorkspaceNode
	// and a metric name what is missing.
	Required bool `json:"required"`
}

// Egress is where initializers must not connect to: what they fetch is named by those who write workspaces, and by servers that redirect.
type Egress struct {
	// Deny lists networks, as in "10.96.0.0/12". The address that a connection goes to counts, whatever name led there.
	Deny []string `json:"deny"`
}

// defaultEgress keeps off what is meant for this node alone: its own services, and the metadata of clouds, which have credentials in
// them.
func defaultEgress() Egress {
	return Egress{Deny: []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/128", "::1/128", "fe80::/10", "fd00:ec2::/32"}}
}

func (e Egress) validate() error {
	errs := make([]error, 0, len(e.Deny))
	for i, network := range e.Deny {
		if p, err := netip.ParsePrefix(network); err != nil || p != p.Masked() {
			errs = append(errs, wrong(element("content.egress.deny", i), `must be a network such as "10.96.0.0/12" or "192.0.2.1/32", not %q`, network))
		}
	}
	return errors.Join(errs...)
}

// Networks returns what is denied; the configuration is valid.
func (e Egress) Networks() []netip.Prefix {
	networks := make([]netip.Prefix, 0, len(e.Deny))
	for _, network := range e.Deny {
		networks = append(networks, netip.MustParsePrefix(network))
	}
	return networks
}

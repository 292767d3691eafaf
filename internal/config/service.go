package config

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Service is the daemon's gRPC service: lists, watches, backups and snapshots of this node's workspaces. On the unix socket root of
// the node may do everything. At the address callers need a certificate, and may do what rights say.
type Service struct {
	// Socket is the path of the unix socket, in a directory that only the daemon uses and that it makes; empty turns it off.
	Socket string `json:"socket"`
	// Address is host:port, where TLS 1.3 with certificates of both sides is spoken; empty turns it off.
	Address string `json:"address"`
	// CertFile is the daemon's certificate and those between it and its authority, in PEM format, read again when it changes.
	CertFile string `json:"certFile,omitempty"`
	// KeyFile is the key of the certificate, in PEM format.
	KeyFile string `json:"keyFile,omitempty"`
	// ClientCAFile has the certificates of the authorities that callers' certificates must come from, in PEM format, read again when it
	// changes. They should be authorities for this purpose alone.
	ClientCAFile string `json:"clientCAFile,omitempty"`
	// Rights say which callers may do what at the address. Whatever no right allows is refused.
	Rights []Right `json:"rights" reload:"live"`
	// RequestsPerSecond is how many calls one caller may begin in a second; twice as many at once.
	RequestsPerSecond int `json:"requestsPerSecond" reload:"live" schema:"min=1"`
	// Exports is how many exports and lists of files run at once.
	Exports int `json:"exports" reload:"live" schema:"min=1"`
}

// Right allows a caller some methods in some namespaces.
type Right struct {
	// Subject is what the caller's certificate must have: a common name, as "CN=ws-manager", or a name of the type URI, as
	// "URI=spiffe://cluster.local/ns/ws/sa/manager". Both are compared letter for letter.
	Subject string `json:"subject" schema:"required"`
	// Methods are those of the service; "*" for all of them.
	Methods []string `json:"methods" schema:"required,enum=*|List|Get|Watch|WaitReady|Backup|ListBackups|ListFiles|Snapshot|Usage|Export"`
	// Namespaces are those of the workspaces; "*" for all of them.
	Namespaces []string `json:"namespaces" schema:"required"`
}

// DefaultSocket is the path of the socket, unless the configuration says otherwise.
const DefaultSocket = "/run/ws-daemon/service/socket"

// Everything stands for all methods, or all namespaces.
const Everything = "*"

// The two kinds of subjects.
const (
	subjectName = "CN="
	subjectURI  = "URI="
)

func defaultService() Service {
	return Service{Socket: DefaultSocket, Rights: []Right{}, RequestsPerSecond: 20, Exports: 2}
}

// Methods returns the names of the service's methods.
func Methods() []string {
	return []string{"List", "Get", "Watch", "WaitReady", "Backup", "ListBackups", "ListFiles", "Snapshot", "Usage", "Export"}
}

func (s Service) validate() error {
	errs := []error{
		s.validateSocket(),
		address("service.address", s.Address),
		absoluteIfSet("service.certFile", s.CertFile),
		absoluteIfSet("service.keyFile", s.KeyFile),
		absoluteIfSet("service.clientCAFile", s.ClientCAFile),
		atLeast("service.requestsPerSecond", s.RequestsPerSecond, 1, ""),
		atLeast("service.exports", s.Exports, 1, ""),
	}
	for _, file := range []struct{ key, path string }{
		{"service.certFile", s.CertFile}, {"service.keyFile", s.KeyFile}, {"service.clientCAFile", s.ClientCAFile},
	} {
		switch {
		case s.Address != "" && file.path == "":
			errs = append(errs, wrong(file.key, "must be set for service.address: nobody is served there without certificates of both sides"))
		case s.Address == "" && file.path != "":
			errs = append(errs, wrong(file.key, "is for service.address, which is not set"))
		}
	}
	for i, right := range s.Rights {
		errs = append(errs, right.validate(element("service.rights", i)))
	}
	return errors.Join(errs...)
}

// validateSocket refuses what the kernel cannot make a socket of, and a directory that cannot be the daemon's alone.
func (s Service) validateSocket() error {
	const key, longest = "service.socket", 107
	if s.Socket == "" {
		return nil
	}
	if err := absolute(key, s.Socket); err != nil {
		return err
	}
	dir := filepath.Dir(filepath.Clean(s.Socket))
	switch {
	case len(s.Socket) > longest:
		return wrong(key, "must have at most %d bytes, not %d", longest, len(s.Socket))
	case slices.Contains([]string{"/", "/run", "/tmp", "/var", "/var/run", "/var/lib", "/var/tmp"}, dir):
		return wrong(key, "must lie in a directory of its own, %s for example, not in %s", DefaultSocket, dir)
	}
	return nil
}

func (r Right) validate(key string) error {
	errs := []error{validSubject(key+".subject", r.Subject)}
	if len(r.Methods) == 0 {
		errs = append(errs, wrong(key+".methods", `must name methods, or "*"`))
	}
	for i, m := range r.Methods {
		errs = append(errs, oneOf(element(key+".methods", i), m, append([]string{Everything}, Methods()...)...))
	}
	if len(r.Namespaces) == 0 {
		errs = append(errs, wrong(key+".namespaces", `must name namespaces, or "*"`))
	}
	for i, n := range r.Namespaces {
		if n != Everything && !nameText.MatchString(n) {
			errs = append(errs, wrong(element(key+".namespaces", i), `must be the name of a namespace, or "*" for all, not %q`, n))
		}
	}
	return errors.Join(errs...)
}

func validSubject(key, text string) error {
	if name, ok := strings.CutPrefix(text, subjectName); ok && name != "" {
		if strings.Contains(name, "*") {
			return wrong(key, `must be the whole name of one caller, letter for letter: "*" stands for nothing here, as in %q`, text)
		}
		return nil
	}
	if uri, ok := strings.CutPrefix(text, subjectURI); ok {
		if u, err := url.Parse(uri); err == nil && u.Scheme != "" && u.String() == uri {
			return nil
		}
	}
	return wrong(key, `must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not %q`, text)
}

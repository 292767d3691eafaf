package config_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func TestServiceIsRefusedWhereItWouldBeOpenOrCannotBe(t *testing.T) {
	service := func(text string) string {
		return strings.Replace(complete, `"storage"`, `"service": {`+text+`}, "storage"`, 1)
	}
	const tls = `"address": ":7443", "certFile": "/c", "keyFile": "/k", "clientCAFile": "/a"`
	right := func(text string) string { return service(tls + `, "rights": [{` + text + `}]`) }
	for name, c := range map[string]struct{ text, want string }{
		"relative socket":          {service(`"socket": "s"`), `line 3: service.socket: must be an absolute path, not "s"`},
		"socket among others":      {service(`"socket": "/run/socket"`), `line 3: service.socket: must lie in a directory of its own, /run/ws-daemon/service/socket for example, not in /run`},
		"socket of a long path":    {service(`"socket": "/` + strings.Repeat("x", 107) + `"`), `line 3: service.socket: must have at most 107 bytes, not 108`},
		"service without TLS":      {service(`"address": ":7443", "keyFile": "/k", "clientCAFile": "/a"`), `line 3: service.certFile: must be set for service.address: nobody is served there without certificates of both sides`},
		"service without a CA":     {service(`"address": ":7443", "certFile": "/c", "keyFile": "/k"`), `line 3: service.clientCAFile: must be set for service.address: nobody is served there without certificates of both sides`},
		"TLS without service":      {service(`"keyFile": "/k"`), `line 3: service.keyFile: is for service.address, which is not set`},
		"relative TLS certificate": {service(strings.Replace(tls, `"/c"`, `"c"`, 1)), `line 3: service.certFile: must be an absolute path, not "c"`},
		"service at metrics":       {service(strings.Replace(tls, ":7443", "127.0.0.1:9090", 1)), "line 3: service.address: must not be that of health or metrics, 127.0.0.1:9090"},
		"no calls":                 {service(`"requestsPerSecond": 0`), "line 3: service.requestsPerSecond: must be at least 1, not 0"},
		"no exports":               {service(`"exports": 0`), "line 3: service.exports: must be at least 1, not 0"},
		"right of nobody":          {right(`"methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not ""`},
		"right of an empty name":   {right(`"subject": "CN=", "methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not "CN="`},
		"right of no URI":          {right(`"subject": "URI=manager", "methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not "URI=manager"`},
		"right to nothing":         {right(`"subject": "CN=a", "methods": [], "namespaces": ["*"]`), `line 3: service.rights[0].methods: must name methods, or "*"`},
		"right to another":         {right(`"subject": "CN=a", "methods": ["Delete"], "namespaces": ["*"]`), `line 3: service.rights[0].methods: must be one of ["*" "List" "Get" "Watch" "WaitReady" "Backup" "ListBackups" "ListFiles" "Snapshot" "Usage" "Export"], not "Delete"`},
		"right to nowhere":         {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": []`), `line 3: service.rights[0].namespaces: must name namespaces, or "*"`},
		"right to a pattern":       {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": ["team-*"]`), `line 3: service.rights[0].namespaces: must have names of namespaces, or "*" alone, not "team-*"`},
		"unknown key of a right":   {right(`"subjects": "CN=a"`), `line 3: service.rights[0].subjects: there is no such key; did you mean subject?`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte(c.text))
			NewWithT(t).Expect(err).To(MatchError(c.want))
		})
	}
}

func TestDefaultsOfTheService(t *testing.T) {
	NewWithT(t).Expect(config.Default().Service).To(Equal(config.Service{
		Socket: "/run/ws-daemon/service/socket", Rights: []config.Right{}, RequestsPerSecond: 20, Exports: 2,
	}))
}

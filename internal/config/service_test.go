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
		"service at health":        {service(strings.Replace(tls, ":7443", "127.0.0.1:8081", 1)), "line 3: service.address: must not be that of health or metrics, 127.0.0.1:8081"},
		"two sockets in one place": {service(`"socket": "/run/x/a"}, "csi": {"socket": "/run/x/b"`), "line 3: service.socket: must lie in a directory of its own, not in that of csi.socket, /run/x/b"},
		"no calls":                 {service(`"requestsPerSecond": 0`), "line 3: service.requestsPerSecond: must be at least 1, not 0"},
		"no exports":               {service(`"exports": 0`), "line 3: service.exports: must be at least 1, not 0"},
		"right of nobody":          {right(`"methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not ""`},
		"right of an empty name":   {right(`"subject": "CN=", "methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not "CN="`},
		"right of no URI":          {right(`"subject": "URI=manager", "methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be a common name, "CN=ws-manager" for example, or a URI, "URI=spiffe://cluster.local/ns/ws/sa/manager", not "URI=manager"`},
		"right of many":            {right(`"subject": "CN=team-*", "methods": ["*"], "namespaces": ["*"]`), `line 3: service.rights[0].subject: must be the whole name of one caller, letter for letter: "*" stands for nothing here, as in "CN=team-*"`},
		"right to a path":          {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": ["team-a", "../team-b"]`), `line 3: service.rights[0].namespaces[1]: must be the name of a namespace, or "*" for all, not "../team-b"`},
		"right to no namespace":    {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": [""]`), `line 3: service.rights[0].namespaces[0]: must be the name of a namespace, or "*" for all, not ""`},
		"right to nothing":         {right(`"subject": "CN=a", "methods": [], "namespaces": ["*"]`), `line 3: service.rights[0].methods: must name methods, or "*"`},
		"right to another":         {right(`"subject": "CN=a", "methods": ["Delete"], "namespaces": ["*"]`), `line 3: service.rights[0].methods[0]: must be one of ["*" "List" "Get" "Watch" "WaitReady" "Backup" "ListBackups" "ListFiles" "Snapshot" "Usage" "Export"], not "Delete"`},
		"right to nowhere":         {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": []`), `line 3: service.rights[0].namespaces: must name namespaces, or "*"`},
		"right to a pattern":       {right(`"subject": "CN=a", "methods": ["Get"], "namespaces": ["team-*"]`), `line 3: service.rights[0].namespaces[0]: must be the name of a namespace, or "*" for all, not "team-*"`},
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

// Two servers cannot have one port, unless their addresses are different ones.
func TestServersMayShareAPort(t *testing.T) {
	for _, addresses := range [][2]string{{"127.0.0.1:9090", "127.0.0.2:9090"}, {"0.0.0.0:9090", "[::1]:9090"}, {"127.0.0.1:9090", "[::1]:9090"}, {":9090", ":9091"}, {"", ""}} {
		text := strings.Replace(complete, `"storage"`, `"health": {"address": "`+addresses[0]+`"}, "metrics": {"address": "`+addresses[1]+`"}, "storage"`, 1)
		_, err := config.Parse([]byte(text))
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%v", addresses)
	}
}

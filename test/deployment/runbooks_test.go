package deployment

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// typed are the commands for kubectl of a document: those of its blocks and those in its lines.
func typed(t *testing.T, document string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", document))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var commands []string
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.SplitSeq(block[1], "\n") {
			if strings.HasPrefix(line, "kubectl ") {
				commands = append(commands, line)
			}
		}
	}
	for _, found := range regexp.MustCompile("`(kubectl [^`]+)`").FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, strings.ReplaceAll(found[1], "\n", " "))
	}
	return commands
}

// absent is what commands may end with here: there are no pods and no logs, nor objects of other projects, and nothing is waited for.
var absent = regexp.MustCompile(`^$|^No resources found|\(NotFound\): pods "there" not found|timed out waiting for the condition|` +
	`doesn't have a resource type "certificate"|no matches for kind "(PodMonitor|PrometheusRule)"`)

// Whatever a runbook has somebody type works as it stands there, once the names of things are put in.
func TestCommandsOfTheRunbooksWork(t *testing.T) {
	g := NewWithT(t)
	things(t)
	names := strings.NewReplacer("NAMESPACE", "there", "NAME", "there", "NODE", "there", "POD", "there", "--timeout=1h", "--timeout=1s", "--timeout=10m", "--timeout=1s")
	commands := typed(t, "operations.md")
	g.Expect(len(commands)).To(BeNumerically(">", 40))
	for _, command := range commands {
		if command == "kubectl port-forward" {
			continue // it is its name
		}
		command = names.Replace(command)
		for _, changes := range []string{"patch", "annotate", "apply"} {
			command = strings.Replace(command, "kubectl "+changes+" ", "kubectl "+changes+" --dry-run=server ", 1)
		}
		c := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", command)
		c.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig(), "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
		c.Dir = root
		out, err := c.CombinedOutput()
		g.Expect(string(out)).NotTo(MatchRegexp("unknown (shorthand )?flag|unknown command"), command)
		if err != nil {
			g.Expect(string(out)).To(MatchRegexp(absent.String()), "%s: %v", command, err)
		}
	}
}

// things are what the commands are about: one of each kind, all of one name.
func things(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	mustRun(t, "create", "namespace", "there")
	mustRun(t, "config", "set-context", "--current", "--namespace=there")
	after := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		out, err := run(after, nil, "config", "set-context", "--current", "--namespace=default")
		g.Expect(err).NotTo(HaveOccurred(), out)
	})
	manifest := `
apiVersion: workspace.wsdaemon.dev/v1
kind: Workspace
metadata: {name: there, namespace: there}
spec: {nodeName: there, volume: {size: 1Gi}, initializer: {empty: {}}}
---
apiVersion: workspace.wsdaemon.dev/v1
kind: WorkspaceNode
metadata: {name: there}
---
apiVersion: v1
kind: Node
metadata: {name: there}
---
apiVersion: v1
kind: Secret
metadata: {name: ws-daemon-service, namespace: ws-daemon-system}
stringData: {tls.crt: CERT, ca.crt: CERT}
`
	text := strings.ReplaceAll(manifest, "CERT", "\""+strings.ReplaceAll(certificate(t), "\n", `\n`)+"\"")
	out, err := run(t.Context(), []byte(text), "create", "-f", "-")
	g.Expect(err).NotTo(HaveOccurred(), out)
	t.Cleanup(func() {
		out, err := run(after, []byte(text), "delete", "--ignore-not-found", "-f", "-")
		g.Expect(err).NotTo(HaveOccurred(), out)
	})
}

func certificate(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "there"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	g.Expect(err).NotTo(HaveOccurred())
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

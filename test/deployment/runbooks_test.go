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

// typed are the commands of a document that begin with a program: those of its blocks and those in its lines. In a block, one goes on
// over lines that are set in.
func typed(t *testing.T, document, program string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", document))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var commands []string
	for _, block := range regexp.MustCompile("(?s)\n *```sh\n(.*?)\n *```\n").FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, regexp.MustCompile("(?m)^"+program+" .*(\n  .*)*").FindAllString(block[1], -1)...)
	}
	for _, found := range regexp.MustCompile("`("+program+" [^`]+)`").FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, strings.ReplaceAll(found[1], "\n", " "))
	}
	return commands
}

// absent is what commands may end with here: there are no pods and no logs, nor objects of other projects, and nothing is waited for; what
// an installation makes is there already, and nobody may read Secrets.
var absent = regexp.MustCompile(`^$|^no\n$|^No resources found|\(NotFound\): pods "(there|empty-shell)" not found|timed out waiting for the condition|` +
	`doesn't have a resource type "certificate"|no matches for kind "(PodMonitor|PrometheusRule)"|"ws-daemon-(system|store)" already exists|` +
	`taint "workspace.wsdaemon.dev/disk-pressure" not found|no preferred addresses found`)

var (
	// changing are the commands of kubectl that would change something, asked the ones that wait for a pod, or for pods.
	changing = regexp.MustCompile(`kubectl( -n \S+)? (patch|annotate|apply|create|delete|taint) `)
	asked    = regexp.MustCompile(`kubectl( -n \S+)? (exec|logs) `)
	rolled   = regexp.MustCompile(`rollout status `)
)

// Whatever the documents have somebody type works as it stands there, once the names of things are put in.
func TestCommandsOfTheDocumentsWork(t *testing.T) {
	things(t)
	dir := t.TempDir()
	files, err := filepath.Abs(root)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(os.Symlink(filepath.Join(files, "config"), filepath.Join(dir, "config"))).To(Succeed())
	for _, credential := range []string{"access-key-id", "secret-access-key"} {
		NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, credential), []byte("x"), 0o600)).To(Succeed())
	}
	names := strings.NewReplacer("NAMESPACE", "there", "NAME", "there", "NODE", "there", "POD", "there",
		"--timeout=1h", "--timeout=1s", "--timeout=10m", "--timeout=1s", "--timeout=2m", "--timeout=1s")
	for document, atLeast := range map[string]int{"operations.md": 40, "install.md": 18, "pods.md": 2} {
		commands := typed(t, document, "kubectl")
		NewWithT(t).Expect(len(commands)).To(BeNumerically(">=", atLeast), document)
		for _, command := range commands {
			if command == "kubectl port-forward" || command == "kubectl rollout undo" {
				continue // it is its name
			}
			command = changing.ReplaceAllString(names.Replace(command), "${0}--dry-run=server ")
			command = asked.ReplaceAllString(command, "${0}--pod-running-timeout=1s ")
			tryOut(t, dir, rolled.ReplaceAllString(command, "${0}--timeout=1s "))
		}
	}
}

// tryOut runs a command, which has to succeed as far as it can here.
func tryOut(t *testing.T, dir, command string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", command)
	c.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig(), "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	c.Dir = dir
	out, err := c.CombinedOutput()
	g := NewWithT(t)
	g.Expect(string(out)).NotTo(MatchRegexp("unknown (shorthand )?flag|unknown command|syntax error"), command)
	if err != nil {
		g.Expect(string(out)).To(MatchRegexp(absent.String()), "%s: %v", command, err)
	}
}

// The targets and variables of make, the arguments of the image, and the files of the repository that documents name are there.
func TestWhatDocumentsNameIsThere(t *testing.T) {
	g := NewWithT(t)
	text := func(name string) string {
		content, err := os.ReadFile(filepath.Join(root, name))
		g.Expect(err).NotTo(HaveOccurred())
		return string(content)
	}
	makefile, dockerfile := text("Makefile"), text("Dockerfile")
	documents, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	g.Expect(err).NotTo(HaveOccurred())
	seen := 0
	for _, document := range documents {
		document = filepath.Base(document)
		for _, command := range typed(t, document, "make") {
			command, _, _ = strings.Cut(command, " #")
			for _, word := range strings.Fields(command)[1:] {
				seen++
				if name, _, isVariable := strings.Cut(word, "="); isVariable {
					g.Expect(makefile).To(MatchRegexp(`(?m)^`+name+` \?=`), "%s: %s", document, command)
				} else {
					g.Expect(makefile).To(MatchRegexp(`(?m)^`+word+`:`), "%s: %s", document, command)
				}
			}
		}
		for _, found := range regexp.MustCompile(`--build-arg (\w+)=`).FindAllStringSubmatch(text("docs/"+document), -1) {
			seen++
			g.Expect(dockerfile).To(MatchRegexp(`(?m)^ARG `+found[1]+`\b`), document)
		}
		for _, found := range regexp.MustCompile("[`( ](?:\\.\\./)*((?:config|hack)/[a-z][\\w./-]*\\w)").FindAllStringSubmatch(text("docs/"+document), -1) {
			seen++
			g.Expect(filepath.Join(root, found[1])).To(Or(BeADirectory(), BeAnExistingFile()), document)
		}
	}
	g.Expect(seen).To(BeNumerically(">", 40))
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

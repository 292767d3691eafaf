package cmd

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

func TestAnOldAPIServerIsNamedWithWhatToDo(t *testing.T) {
	const upgrade = ", and ws-daemon needs 1.32 or newer: upgrade the control plane of the cluster; until then all waits"
	for text, want := range map[string]string{
		"v1.32.0": "", "v1.32.4-gke.1236000": "", "v1.37.2": "", "v2.0.0": "",
		"v1.31.14":             "the API server is v1.31.14" + upgrade,
		"v1.31.2-eks-7f9249a":  "the API server is v1.31.2-eks-7f9249a" + upgrade,
		"v1.9.0+k3s1":          "the API server is v1.9.0+k3s1" + upgrade,
		"a server of its kind": "the API server's version: ",
	} {
		err := modern(t.Context(), func(context.Context) (string, error) { return text, nil }, "all waits")
		if want == "" {
			NewWithT(t).Expect(err).NotTo(HaveOccurred(), text)
			continue
		}
		NewWithT(t).Expect(err).To(MatchError(HavePrefix(want)), text)
	}
	none := errors.New("no answer")
	NewWithT(t).Expect(modern(t.Context(), func(context.Context) (string, error) { return "", none }, "")).To(MatchError(none))
}

func TestTheAPIServerTellsItsVersion(t *testing.T) {
	g := NewWithT(t)
	ask, err := apiVersion(apiServer.Config())
	g.Expect(err).NotTo(HaveOccurred())
	text, err := ask(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(MatchRegexp(`^v1\.[0-9]+\.[0-9]+$`))
	g.Expect(modern(t.Context(), ask, "")).To(Succeed())
}

// At an API server that is too old the daemon waits, and the controller ends: both say so in the same words, and ask for nothing else.
func TestNobodyWorksWithAnOldAPIServer(t *testing.T) {
	n := newNode(t)
	asked := make(chan string, 100)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		_, _ = w.Write([]byte(`{"gitVersion": "v1.31.14"}`))
	}))
	defer old.Close()
	const words = "the API server is v1.31.14, and ws-daemon needs 1.32 or newer: upgrade the control plane of the cluster; until then "
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	access := api.NewConfig()
	access.Clusters["old"] = &api.Cluster{Server: old.URL}
	access.Contexts["old"] = &api.Context{Cluster: "old"}
	access.CurrentContext = "old"
	n.Expect(clientcmd.WriteToFile(*access, kubeconfig)).To(Succeed())
	n.Expect(refused(t, "controller", "--config="+n.config, "--kubeconfig="+kubeconfig, "--namespace=default")).
		To(Equal(words + "no object is let go without its node, and the daemons tend the store"))

	ask, err := apiVersion(&rest.Config{Host: old.URL})
	n.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log lines
	done := make(chan error, 1)
	go func() {
		_, err := admission{logger: log.logger(), reader: silent{}, node: "node-a", version: ask}.wait(ctx)
		done <- err
	}()
	n.Eventually(log.String).Should(ContainSubstring(words + "nothing of its objects is done, and what lies on the node is only backed up"))
	cancel()
	n.Eventually(done).Should(Receive(MatchError(context.Canceled)))
	old.Close()
	close(asked)
	for path := range asked {
		n.Expect(path).To(Equal("/version"))
	}
}

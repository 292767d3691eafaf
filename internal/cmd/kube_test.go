package cmd

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
)

func TestAnOldAPIServerIsNamedWithWhatToDo(t *testing.T) {
	const upgrade = ", and ws-daemon needs 1.32 or newer: upgrade the control plane of the cluster"
	for text, want := range map[string]string{
		"v1.32.0": "", "v1.32.4-gke.1236000": "", "v1.37.2": "", "v2.0.0": "",
		"v1.31.14":             "the API server is v1.31.14" + upgrade,
		"v1.31.2-eks-7f9249a":  "the API server is v1.31.2-eks-7f9249a" + upgrade,
		"v1.9.0+k3s1":          "the API server is v1.9.0+k3s1" + upgrade,
		"a server of its kind": "the API server's version: ",
	} {
		err := admission{version: func(context.Context) (string, error) { return text, nil }}.modern(t.Context())
		if want == "" {
			NewWithT(t).Expect(err).NotTo(HaveOccurred(), text)
			continue
		}
		NewWithT(t).Expect(err).To(MatchError(HavePrefix(want)), text)
	}
	none := errors.New("no answer")
	NewWithT(t).Expect(admission{version: func(context.Context) (string, error) { return "", none }}.modern(t.Context())).To(MatchError(none))
}

func TestTheAPIServerTellsItsVersion(t *testing.T) {
	g := NewWithT(t)
	ask, err := apiVersion(apiServer.Config())
	g.Expect(err).NotTo(HaveOccurred())
	text, err := ask(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(MatchRegexp(`^v1\.[0-9]+\.[0-9]+$`))
	g.Expect(admission{version: ask}.modern(t.Context())).To(Succeed())
}

package controllers

import (
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
)

func TestGitLocation(t *testing.T) {
	git := func(place string) *v1.GitInitializer { return &v1.GitInitializer{CheckoutLocation: place} }
	prebuild := &v1.PrebuildInitializer{Git: []v1.GitInitializer{*git("pre"), *git("other")}}
	for name, tt := range map[string]struct {
		initializer v1.Initializer
		want        string
	}{
		"none":      {v1.Initializer{}, ""},
		"empty":     {v1.Initializer{Empty: &v1.EmptyInitializer{}}, ""},
		"git":       {v1.Initializer{Git: git("web")}, "web"},
		"prebuild":  {v1.Initializer{Prebuild: prebuild}, "pre"},
		"composite": {v1.Initializer{Composite: []v1.InitializerStep{{Download: &v1.DownloadInitializer{}}, {Git: git("b")}, {Git: git("c")}}}, "b"},
	} {
		NewWithT(t).Expect(gitLocation(tt.initializer)).To(Equal(tt.want), name)
	}
}

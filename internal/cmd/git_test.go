package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	v1 "wsdaemon.dev/ws-daemon/api/v1"
	"wsdaemon.dev/ws-daemon/controllers"
	"wsdaemon.dev/ws-daemon/internal/content/initializer"
	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

func TestS9_ASuspiciousGitIsACondition(t *testing.T) {
	for says, want := range map[string]controllers.NodeCondition{
		"echo git version 2.50.1": {True: true, Reason: v1.ReasonGitCurrent, Message: "repositories are cloned by git 2.50.1"},
		"echo git version 2.50.0": {Reason: v1.ReasonGitOld, Message: (&initializer.OldVersionError{Version: "2.50.0"}).Error()},
		"echo nonsense":           {Reason: v1.ReasonGitUnusable, Message: "git does not tell its version"},
		"exit 3":                  {Reason: v1.ReasonGitUnusable, Message: "run PROGRAM version: exit status 3"},
	} {
		g := NewWithT(t)
		dir := t.TempDir()
		g.Expect(os.Chmod(filepath.Dir(dir), 0o711)).To(Succeed())
		program := filepath.Join(dir, "git")
		g.Expect(os.WriteFile(program, []byte("#!/bin/sh\n"+says+"\n"), 0o755)).To(Succeed())
		box, err := sandbox.New(t.Context(), sandbox.Options{Visible: []string{dir}})
		g.Expect(err).NotTo(HaveOccurred())
		want.Type = v1.ConditionGitCurrent
		got := gitCondition(t.Context(), initializer.Git{Sandbox: box, Program: program})
		got.Message = strings.Replace(got.Message, program, "PROGRAM", 1)
		g.Expect(got).To(Equal(want), says)
	}
}

package cmd

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestS9_AMetricSaysWhatTheSandboxLacks(t *testing.T) {
	g := NewWithT(t)
	registry := prometheus.NewRegistry()
	g.Expect(registry.Register(protections(nil))).To(Succeed())
	g.Expect(testutil.GatherAndCount(registry, "ws_daemon_sandbox_protection")).To(Equal(10))
	g.Expect(testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP ws_daemon_sandbox_protection Whether hostile content is read behind this protection: 1 if so, 0 if the kernel or the container denies it.
		# TYPE ws_daemon_sandbox_protection gauge
		ws_daemon_sandbox_protection{protection="Connections"} 0
		ws_daemon_sandbox_protection{protection="IPCNamespace"} 0
		ws_daemon_sandbox_protection{protection="Landlock"} 0
		ws_daemon_sandbox_protection{protection="MountNamespace"} 0
		ws_daemon_sandbox_protection{protection="NetworkNamespace"} 0
		ws_daemon_sandbox_protection{protection="PIDNamespace"} 0
		ws_daemon_sandbox_protection{protection="ProcessView"} 0
		ws_daemon_sandbox_protection{protection="SystemCalls"} 0
		ws_daemon_sandbox_protection{protection="UTSNamespace"} 0
		ws_daemon_sandbox_protection{protection="UserNamespace"} 0
	`))).To(Succeed())
}

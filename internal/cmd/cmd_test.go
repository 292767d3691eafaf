package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func TestVersion(t *testing.T) {
	g := NewWithT(t)
	g.Expect(must(t, "version")).To(MatchRegexp(`^ws-daemon \S+ ` + runtime.Version() + ` ` + runtime.GOOS + `/` + runtime.GOARCH + "\n$"))
	version = "v1.2.3"
	t.Cleanup(func() { version = "" })
	g.Expect(must(t, "version")).To(HavePrefix("ws-daemon v1.2.3 go"))
}

func TestExampleConfigurationPassesItsCheck(t *testing.T) {
	g := NewWithT(t)
	example := must(t, "config", "example")
	var c config.Config
	g.Expect(json.Unmarshal([]byte(example), &c)).To(Succeed())
	g.Expect(c).To(Equal(config.Example()))
	file := filepath.Join(t.TempDir(), "config.json")
	g.Expect(os.WriteFile(file, []byte(example), 0o600)).To(Succeed())
	g.Expect(must(t, "config", "check", "--without-store", file)).To(Equal(file + ": ok\n"))
}

// The store is part of a configuration: that it can be used is told before a daemon is started with it.
func TestConfigCheckProbesTheStore(t *testing.T) {
	g := NewWithT(t)
	c := config.Example()
	c.Storage.Filesystem.Path = t.TempDir()
	data, err := json.Marshal(c)
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(t.TempDir(), "config.json")
	g.Expect(os.WriteFile(file, data, 0o600)).To(Succeed())
	url := "file://" + c.Storage.Filesystem.Path
	g.Expect(refused(t, "config", "check", file)).To(ContainSubstring("make a new store with `ws-daemon archive init --store '" + url + "'`"))
	must(t, "archive", "init", "--store", url)
	g.Expect(must(t, "config", "check", file)).To(Equal(file + ": ok\nstore " + url +
		": ok (creates only what is absent, also when writers race; reads and lists what was just written; deletes)\n"))
	g.Expect(os.RemoveAll(c.Storage.Filesystem.Path)).To(Succeed())
	g.Expect(refused(t, "config", "check", file)).To(ContainSubstring("is it mounted?"))
}

func TestConfigCheckRefuses(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "config.json")
	g.Expect(os.WriteFile(file, []byte("{\n \"colour\": 1\n}"), 0o600)).To(Succeed())
	g.Expect(refused(t, "config", "check", file)).To(Equal(
		file + ":2: colour: there is no such key; there are $schema, content, storage, volumes, csi, limits, node, service, health, metrics, log"))
	g.Expect(refused(t, "config", "check", "/nowhere")).To(Equal("configuration /nowhere does not exist: `ws-daemon config example` prints one"))
	g.Expect(refused(t, "config", "check")).To(Equal("accepts 1 arg(s), received 0"))
}

func TestConfigSchemaIsTheGeneratedOne(t *testing.T) {
	g := NewWithT(t)
	published, err := os.ReadFile("../../config/schema.json")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(must(t, "config", "schema")).To(Equal(string(published)))
}

func TestProfilesStayOnTheMachine(t *testing.T) {
	NewWithT(t).Expect(refused(t, "run", "--pprof", ":6060")).To(Equal(
		"--pprof: profiles show what is in memory: only an address of this machine, as 127.0.0.1:6060, is allowed, not :6060"))
}

func TestUnknownCommandsAreRefused(t *testing.T) {
	g := NewWithT(t)
	g.Expect(refused(t, "frobnicate")).To(HavePrefix(`unknown command "frobnicate" for "ws-daemon"`))
	g.Expect(refused(t, "run", "now")).To(Equal(`unknown command "now" for "ws-daemon run"`))
	g.Expect(refused(t, "run", "--colour")).To(Equal("unknown flag: --colour"))
}

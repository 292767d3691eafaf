package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"wsdaemon.dev/ws-daemon/internal/config"
)

const valid = `{
  "content": {"workingArea": "/var/lib/ws-daemon", "timeouts": {"backup": "1h"}},
  "storage": {"kind": "filesystem", "filesystem": {"path": "/mnt/store"}},
  "volumes": {"classes": {"default": {"driver": "directory", "allowUnlimited": true}}},
  "log": {"level": "info"}
}`

func edited(old, replacement string) string { return strings.Replace(valid, old, replacement, 1) }

// watched is a watcher under test, and what it did.
type watched struct {
	*WithT

	file string

	mu       sync.Mutex
	applied  []config.Config
	outcomes []config.Outcome
}

// watch starts a watcher of a file that holds the valid configuration, or is a link to one that does.
func watch(t *testing.T, file string, interval time.Duration) *watched {
	t.Helper()
	w := &watched{WithT: NewWithT(t), file: file}
	running, err := config.Load(file)
	w.Expect(err).NotTo(HaveOccurred())
	watcher := config.NewWatcher(file, running,
		func(c config.Config) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.applied = append(w.applied, c)
		},
		func(o config.Outcome) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.outcomes = append(w.outcomes, o)
		})
	watcher.Hasten(20*time.Millisecond, interval)
	ignored := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- watcher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		w.Eventually(ended).Should(Receive(BeNil()))
		goleak.VerifyNone(t, ignored)
	})
	w.Eventually(w.last, "10s").Should(HaveValue(Equal(config.Outcome{})), "it compares with what runs first")
	return w
}

func (w *watched) last() *config.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.outcomes) == 0 {
		return nil
	}
	return &w.outcomes[len(w.outcomes)-1]
}

func (w *watched) level() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.applied) == 0 {
		return ""
	}
	return w.applied[len(w.applied)-1].Log.Level
}

func (w *watched) write(text string) {
	w.Expect(os.WriteFile(w.file, []byte(text), 0o600)).To(Succeed())
}

// replace renames a new file over the old one, as editors do.
func (w *watched) replace(text string) {
	w.Expect(os.WriteFile(w.file+".new", []byte(text), 0o600)).To(Succeed())
	w.Expect(os.Rename(w.file+".new", w.file)).To(Succeed())
}

func fileWith(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	NewWithT(t).Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
	return file
}

const never = time.Hour

func TestWatchTakesOverWhatMayChange(t *testing.T) {
	for name, change := range map[string]func(*watched, string){"written": (*watched).write, "replaced": (*watched).replace} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, fileWith(t, valid), never)
			change(w, edited(`"info"`, `"debug"`))
			w.Eventually(w.last, "10s").Should(HaveValue(Equal(config.Outcome{Changed: []string{"log.level"}})))
			w.Expect(w.level()).To(Equal("debug"))
			change(w, valid)
			w.Eventually(w.level, "10s").Should(Equal("info"))
		})
	}
}

// A ConfigMap's files are links through ..data, which the kubelet replaces.
func TestWatchFollowsAConfigMap(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	mount := func(version int, text string) {
		at := filepath.Join(dir, fmt.Sprintf("..version%d", version))
		g.Expect(os.Mkdir(at, 0o700)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(at, "config.json"), []byte(text), 0o600)).To(Succeed())
		g.Expect(os.Symlink(filepath.Base(at), filepath.Join(dir, "..data_tmp"))).To(Succeed())
		g.Expect(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))).To(Succeed())
	}
	mount(1, valid)
	g.Expect(os.Symlink("..data/config.json", filepath.Join(dir, "config.json"))).To(Succeed())
	w := watch(t, filepath.Join(dir, "config.json"), never)
	for version, level := range []string{2: "debug", 3: "warn", 4: "error"} {
		if level == "" {
			continue
		}
		mount(version, edited(`"info"`, `"`+level+`"`))
		g.Expect(os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..version%d", version-1)))).To(Succeed())
		w.Eventually(w.level, "10s").Should(Equal(level))
	}
}

// A file of another directory that the configuration is a link to.
func TestWatchFollowsALink(t *testing.T) {
	g := NewWithT(t)
	target := fileWith(t, valid)
	link := filepath.Join(t.TempDir(), "link.json")
	g.Expect(os.Symlink(target, link)).To(Succeed())
	w := watch(t, link, never)
	g.Expect(os.WriteFile(target, []byte(edited(`"info"`, `"warn"`)), 0o600)).To(Succeed())
	w.Eventually(w.level, "10s").Should(Equal("warn"))
}

func TestWatchSaysWhatWaitsForARestart(t *testing.T) {
	w := watch(t, fileWith(t, valid), never)
	changed := strings.NewReplacer("/mnt/store", "/mnt/other", `"backup": "1h"`, `"backup": "2h"`, `"driver"`, `"path": "/mnt/v", "driver"`,
		`"level": "info"`, `"format": "console"`).Replace(valid)
	w.write(changed)
	w.Eventually(w.last, "10s").Should(HaveValue(Equal(config.Outcome{
		Changed: []string{"content.timeouts.backup"}, Pending: []string{"storage.filesystem", "volumes.classes", "log.format"},
	})))
	got := w.applied[0]
	w.Expect(got.Content.Timeouts.Backup.Duration).To(Equal(2 * time.Hour))
	w.Expect(got.Storage.Filesystem.Path).To(Equal("/mnt/store"), "what needs a restart stays as it runs")
	w.Expect(got.Volumes.Classes["default"].Path).To(BeEmpty())
	w.Expect(got.Log.Format).To(Equal("json"))

	w.write("{")
	w.Eventually(w.last, "10s").Should(HaveValue(HaveField("Err", HaveOccurred())))
	w.Expect(w.last().Pending).To(HaveLen(3), "they still wait")

	w.write(valid)
	w.Eventually(w.last, "10s").Should(HaveValue(Equal(config.Outcome{Changed: []string{"content.timeouts.backup"}})), "nothing waits any more")
}

// Whatever becomes of the file, what runs goes on.
func TestWatchKeepsWhatRuns(t *testing.T) {
	for name, breakIt := range map[string]struct {
		do   func(w *watched)
		want string
	}{
		"not JSON":    {func(w *watched) { w.write("level: debug") }, ":1: this is not JSON: invalid character 'l' looking for beginning of value"},
		"empty":       {func(w *watched) { w.write("") }, ":1: the file is empty: `ws-daemon config example` prints one that is not"},
		"unknown key": {func(w *watched) { w.write(edited(`"level"`, `"levels"`)) }, `:5: log.levels: there is no such key; did you mean level?`},
		"invalid":     {func(w *watched) { w.write(edited(`"info"`, `"loud"`)) }, `:5: log.level: must be one of ["debug" "info" "warn" "error"], not "loud"`},
		"cut off":     {func(w *watched) { w.write(valid[:len(valid)-2]) }, ":5: this is not JSON: unexpected end of JSON input"},
		"gone":        {func(w *watched) { w.Expect(os.Remove(w.file)).To(Succeed()) }, " does not exist: `ws-daemon config example` prints one"},
		"huge":        {func(w *watched) { w.Expect(os.Truncate(w.file, 1<<40)).To(Succeed()) }, " has more than 1048576 bytes: is it the right file?"},
		"a directory": {func(w *watched) {
			w.Expect(os.Remove(w.file)).To(Succeed())
			w.Expect(os.Mkdir(w.file, 0o700)).To(Succeed())
		}, " is not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, fileWith(t, valid), never)
			breakIt.do(w)
			w.Eventually(w.last, "10s").Should(HaveValue(HaveField("Err", MatchError(HaveSuffix(w.file+breakIt.want)))))
			w.Expect(w.level()).To(BeEmpty(), "nothing was applied")
			w.Expect(os.RemoveAll(w.file)).To(Succeed())
			w.replace(edited(`"info"`, `"warn"`))
			w.Eventually(w.level, "10s").Should(Equal("warn"), "a good one is taken again")
		})
	}
}

// The half of a file that is being written is no file yet: nobody is told of a mistake that is none.
func TestWatchWaitsForAWriter(t *testing.T) {
	w := watch(t, fileWith(t, valid), 5*time.Millisecond)
	f, err := os.Create(w.file)
	w.Expect(err).NotTo(HaveOccurred())
	for _, part := range strings.SplitAfter(edited(`"info"`, `"warn"`), "\n") {
		_, err = f.WriteString(part)
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.Expect(f.Close()).To(Succeed())
	w.Eventually(w.level, "10s").Should(Equal("warn"))
	w.Expect(w.outcomes).To(HaveEach(HaveField("Err", BeNil())))
}

// A directory may be on a file system that tells nobody of changes.
func TestWatchLooksBySelf(t *testing.T) {
	g := NewWithT(t)
	running, err := config.Parse([]byte(valid))
	g.Expect(err).NotTo(HaveOccurred())
	file := fileWith(t, edited(`"info"`, `"debug"`))
	outcomes := make(chan config.Outcome, 10)
	w := config.NewWatcher(file, running, func(config.Config) {}, func(o config.Outcome) { outcomes <- o })
	w.Hasten(time.Millisecond, never)
	g.Expect(w.Look(t.Context())).To(BeTrue())
	g.Expect(outcomes).To(Receive(Equal(config.Outcome{Changed: []string{"log.level"}})), "it changed between the start and the first look")
	g.Expect(w.Look(t.Context())).To(BeTrue())
	g.Expect(outcomes).NotTo(Receive(), "nothing has changed")
}

// A file that never holds still is taken in the end.
func TestWatchEndsWaitingForARestlessWriter(t *testing.T) {
	w := watch(t, fileWith(t, valid), time.Millisecond)
	stop := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.WriteFile(w.file+".new", []byte(edited(`"info"`, `"warn"`)+strings.Repeat(" ", i%7000)), 0o600)
			_ = os.Rename(w.file+".new", w.file)
		}
	}()
	w.Eventually(w.level, "30s").Should(Equal("warn"))
	close(stop)
	<-written
}

func TestLiveKeys(t *testing.T) {
	NewWithT(t).Expect(config.LiveKeys()).To(Equal([]string{
		"content.backup.interval", "content.collect.delete", "content.collect.wait", "content.orphanGrace", "content.strayRetention",
		"content.timeouts.backup", "content.timeouts.initialize", "content.timeouts.pods", "content.timeouts.remove",
		"content.timeouts.retryMax", "content.timeouts.store", "content.timeouts.storeTotal", "content.tombstoneGrace",
		"limits.backup", "limits.finalBackup", "limits.initialize", "limits.maintain",
		"limits.store.downloadBytesPerSecond", "limits.store.requests", "limits.store.uploadBytesPerSecond",
		"log.level", "node", "service.exports", "service.requestsPerSecond", "service.rights",
	}))
}

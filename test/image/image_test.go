// Package image tests the image that hack/image builds: what is in it, that what is in it runs, and that two builds are the same.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
)

const (
	root    = "../.."
	version = "v1.2.3-test"
)

// saved is an image as it lies in an archive.
type saved struct {
	dir string // of the unpacked archive
	// names, id and layers of the image; the first layer is the base's.
	names  []string
	id     string
	layers []string
	config struct {
		Architecture string
		Config       struct {
			User            string
			Entrypoint, Cmd []string
			Labels          map[string]string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
}

// build builds the image and unpacks the archive.
func build(t *testing.T) saved {
	t.Helper()
	g, dir := NewWithT(t), t.TempDir()
	file := filepath.Join(dir, "image.tar")
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack/image/build.sh"), "ws-daemon:test", version, file)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1764201600")
	out, err := cmd.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)
	unpack(t, file, dir)
	g.Expect(os.Remove(file)).To(Succeed())
	s := saved{dir: dir}
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	read(t, filepath.Join(dir, "manifest.json"), &manifest)
	g.Expect(manifest).To(HaveLen(1))
	s.names, s.id, s.layers = manifest[0].RepoTags, manifest[0].Config, manifest[0].Layers
	read(t, filepath.Join(dir, s.id), &s.config)
	return s
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(file))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(json.Unmarshal(text, into)).To(Succeed())
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "--numeric-owner", "-xpf", file, "-C", dir).CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s", out)
}

// tree unpacks the layers and returns the directory that a container would have as its root.
func (s saved) tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, layer := range s.layers {
		unpack(t, filepath.Join(s.dir, layer), dir)
		applyWhiteouts(t, dir)
	}
	return dir
}

// applyWhiteouts removes what a layer says is gone of those below it.
func applyWhiteouts(t *testing.T, dir string) {
	t.Helper()
	const prefix = ".wh."
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		name, isOne := strings.CutPrefix(filepath.Base(path), prefix)
		if err != nil || !isOne {
			return err
		}
		return errors.Join(os.Remove(path), os.RemoveAll(filepath.Join(filepath.Dir(path), name)))
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// entries describes all that our layer has.
func (s saved) entries(t *testing.T) map[string]string {
	t.Helper()
	g := NewWithT(t)
	layer, err := os.Open(filepath.Join(s.dir, s.layers[len(s.layers)-1]))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = layer.Close() }()
	all := map[string]string{}
	for r := tar.NewReader(layer); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		g.Expect(err).NotTo(HaveOccurred())
		sum := sha256.New()
		_, err = io.Copy(sum, r)
		g.Expect(err).NotTo(HaveOccurred())
		all[h.Name] = fmt.Sprintf("%c %o %d:%d %d bytes %s %s %v %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime, h.Linkname, h.PAXRecords, sum.Sum(nil))
	}
}

// differences names what is not the same in two layers.
func differences(a, b map[string]string) []string {
	var names []string
	for name := range a {
		if a[name] != b[name] {
			names = append(names, name+": "+a[name]+" is not "+b[name])
		}
	}
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name+" is new")
		}
	}
	return names
}

// inside runs a program of the image, in a directory that has the image's files.
func inside(t *testing.T, tree string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: tree}
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err = cmd.Run()
	return out.String(), words.String(), err
}

func TestImage(t *testing.T) {
	s := build(t)
	tree := s.tree(t)
	t.Run("says what it is", func(t *testing.T) { describes(t, s) })
	t.Run("has every program, and it runs", func(t *testing.T) { hasPrograms(t, tree) })
	t.Run("has nothing else", func(t *testing.T) { hasNothingElse(t, tree) })
	t.Run("can be built upon", func(t *testing.T) { canBeBuiltUpon(t, tree) })
	t.Run("runs the daemon", func(t *testing.T) { runsDaemon(t, tree) })
	t.Run("has a git that withstands the published attacks", func(t *testing.T) { withstandsAttacks(t, tree) })
	t.Run("is the same when it is built again", func(t *testing.T) {
		again := build(t)
		NewWithT(t).Expect(differences(s.entries(t), again.entries(t))).To(BeEmpty())
		NewWithT(t).Expect(again.config.RootFS.DiffIDs).To(Equal(s.config.RootFS.DiffIDs))
		NewWithT(t).Expect(again.id).To(Equal(s.id))
	})
	t.Run("names a program that is missing", func(t *testing.T) { namesMissing(t, tree) })
}

func describes(t *testing.T, s saved) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(s.names).To(Equal([]string{"docker.io/library/ws-daemon:test"}), "what Kubernetes makes of ws-daemon:test")
	g.Expect(s.config.Architecture).To(Equal("amd64"))
	g.Expect(s.config.Config.User).To(Equal("0:0"))
	g.Expect(s.config.Config.Entrypoint).To(Equal([]string{"/usr/bin/ws-daemon"}))
	g.Expect(s.config.Config.Cmd).To(Equal([]string{"run", "--config", "/etc/ws-daemon/config.json"}))
	g.Expect(s.config.Config.Labels).To(And(
		HaveKeyWithValue("org.opencontainers.image.title", "ws-daemon"),
		HaveKeyWithValue("org.opencontainers.image.version", version),
		HaveKeyWithValue("org.opencontainers.image.licenses", "Apache-2.0"),
		HaveKey("org.opencontainers.image.description"),
	))
	g.Expect(s.layers).To(HaveLen(2), "the base, and ours")
}

func hasPrograms(t *testing.T, tree string) {
	t.Helper()
	for _, args := range [][]string{
		{"/usr/bin/git", "--version"},
		{"/usr/bin/git-lfs", "--version"},
		{"/sbin/lvm", "version"},
		{"/usr/sbin/thin_check", "--version"},
		{"/sbin/mkfs.xfs", "-V"},
		{"/sbin/mkfs.ext4", "-V"},
	} {
		_, words, err := inside(t, tree, args...)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%q: %s", args, words)
	}
	certificates, err := os.ReadFile(filepath.Join(tree, "etc/ssl/certs/ca-certificates.crt"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(strings.Count(string(certificates), "BEGIN CERTIFICATE")).To(BeNumerically(">", 50))
}

// hasNothingElse looks for compilers and clients, for what dpkg and apt leave behind, and for our sources.
func hasNothingElse(t *testing.T, tree string) {
	t.Helper()
	g := NewWithT(t)
	for _, name := range []string{"cc", "gcc", "go", "make", "ssh", "curl", "wget", "python3", "sudo", "vi", "nano"} {
		for _, dir := range []string{"usr/bin", "usr/sbin", "usr/local/bin", "usr/local/go/bin"} {
			g.Expect(filepath.Join(tree, dir, name)).NotTo(BeAnExistingFile())
		}
	}
	for _, dir := range []string{"var/lib/apt/lists", "var/cache/apt", "var/log", "tmp", "usr/share/man", "usr/share/locale"} {
		g.Expect(files(t, filepath.Join(tree, dir))).To(BeEmpty(), dir)
	}
	g.Expect(filepath.Glob(filepath.Join(tree, "var/lib/dpkg/*-old"))).To(BeEmpty())
	g.Expect(filepath.Join(tree, "src")).NotTo(BeADirectory())
	g.Expect(filepath.Join(tree, "go")).NotTo(BeADirectory())
}

// canBeBuiltUpon asks apt whether every package has what it demands: else it installs nothing for whoever adds a program.
func canBeBuiltUpon(t *testing.T, tree string) {
	t.Helper()
	for _, args := range [][]string{{"/usr/bin/apt-get", "check"}, {"/usr/bin/dpkg", "--audit"}} {
		out, words, err := inside(t, tree, args...)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%q: %s%s", args, out, words)
		NewWithT(t).Expect(words).To(BeEmpty())
	}
}

// files lists the regular files below a directory; one that is not there has none.
func files(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "find", dir, "-type", "f").Output()
	if _, missing := os.Stat(dir); missing != nil {
		return nil
	}
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return strings.Fields(string(out))
}

// daemonConfig puts a configuration with a store into the tree and returns its path there.
func daemonConfig(t *testing.T, tree string) string {
	t.Helper()
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join(root, "config/manager/config.json"))
	g.Expect(err).NotTo(HaveOccurred())
	dirs := []string{"etc/ws-daemon", "var/lib/ws-daemon", "var/lib/ws-daemon-store"}
	for _, dir := range dirs {
		g.Expect(os.MkdirAll(filepath.Join(tree, dir), 0o700)).To(Succeed())
	}
	file := "/etc/ws-daemon/config.json"
	g.Expect(os.WriteFile(filepath.Join(tree, file), text, 0o600)).To(Succeed())
	return file
}

// The configuration is the one that is deployed with the image.
func runsDaemon(t *testing.T, tree string) {
	t.Helper()
	g := NewWithT(t)
	out, words, err := inside(t, tree, "/usr/bin/ws-daemon", "version")
	g.Expect(err).NotTo(HaveOccurred(), words)
	g.Expect(out).To(MatchRegexp(`^ws-daemon ` + version + ` go1\.\S+ linux/amd64\n$`))
	file := daemonConfig(t, tree)
	_, words, err = inside(t, tree, "/usr/bin/ws-daemon", "archive", "init", "--store", "file:///var/lib/ws-daemon-store")
	g.Expect(err).NotTo(HaveOccurred(), words)
	out, words, err = inside(t, tree, "/usr/bin/ws-daemon", "config", "check", file)
	g.Expect(err).NotTo(HaveOccurred(), words)
	g.Expect(out).To(HavePrefix(file + ": ok\nstore file:///var/lib/ws-daemon-store: ok ("))
}

// asRoot is the script by which a program becomes one in a container: the tree is its root, with processes and devices of its own. Changing
// the root alone would not do: the kernel makes no namespaces of users for whoever has only done that.
const asRoot = `set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
cp --parents "$2" tmp
printf '127.0.0.1 localhost\n' >etc/hosts
pivot_root . mnt
umount -l mnt
exec "/tmp$2" -test.run="$3" -test.v`

// withstandsAttacks runs the tests of published attacks, and all of hostile content, where the image's git is the only one.
func withstandsAttacks(t *testing.T, tree string) {
	t.Helper()
	g := NewWithT(t)
	program := filepath.Join(t.TempDir(), "attacks")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./internal/content/initializer")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)
	git, _, err := inside(t, tree, "/usr/bin/git", "version", "--build-options")
	g.Expect(err).NotTo(HaveOccurred())
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", asRoot, "sh", tree, program, attacks)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	out, err = cmd.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "%s\n%s", git, out)
	for _, name := range []string{"TestS6_PublishedAttacks", "TestS6_PublishedAttacksOnGitItself", "TestS6_HostileRepositories", "TestS8_GitCredentialsAreNowhere"} {
		g.Expect(string(out)).To(ContainSubstring("--- PASS: "+name+" ("), "%s", out)
	}
	g.Expect(string(out)).NotTo(ContainSubstring("--- SKIP"))
}

// attacks are the tests that say what the git of the image may not do.
const attacks = "PublishedAttacks|HostileRepositories|HostileSubmodules|SubmodulesThat|GitRunsNoHooks|GitCredentialsAreNowhere|InAHostileOne|VersionsOfGit"

// An image of one's own may lack something: the daemon's first words are what, and what to do.
func namesMissing(t *testing.T, tree string) {
	t.Helper()
	g := NewWithT(t)
	file := daemonConfig(t, tree)
	run := func() []string {
		_, words, err := inside(t, tree, "/usr/bin/ws-daemon", "run", "--config", file, "--node", "n", "--kubeconfig", "/nowhere")
		g.Expect(err).To(HaveOccurred())
		return strings.Split(words, "\n")
	}
	g.Expect(slices.ContainsFunc(run(), func(line string) bool { return strings.Contains(line, "programs are missing") })).To(BeFalse())
	g.Expect(os.Remove(filepath.Join(tree, "usr/bin/git-lfs"))).To(Succeed())
	g.Expect(run()[0]).To(And(
		ContainSubstring(`"error":"programs are missing: git-lfs (repositories with large files)"`),
		ContainSubstring("add these packages of Debian to yours: git-lfs"),
	))
}

package archive_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// matrix is a tree with everything that the format promises to keep, one promise each.
var matrix = map[string]string{
	"owners":        `touch a; chown 1:2 a; touch b; chown 4294967294:4294967293 b; mkdir d; chown 5:6 d; ln -s x l; chown -h 7:8 l`,
	"modes":         `for m in 0000 0400 0644 0755 1777 2755 4755 6711 7777; do touch f$m; chmod $m f$m; mkdir d$m; chmod $m d$m; done`,
	"root":          `touch x; chmod 2751 .; chown 9:10 .; setfattr -n user.root -v yes .; setfacl -d -m u:11:rwx .; touch -d '2001-02-03 04:05:06.789' .`,
	"times":         `touch -d '2024-01-02 03:04:05.123456789' ns; mkdir d; touch d/x; touch -d '1999-12-31 23:59:59.999999999' d; ln -s x l; touch -h -d '2010-10-10 10:10:10.5' l`,
	"odd times":     `touch -d @-1.5 a; touch -d @-2147483648 b; touch -d @0 c; touch -d @4294967296.000000001 e; touch -d @8589934592 f`,
	"xattrs":        `touch a; setfattr -n user.a -v text a; setfattr -n user.bin -v 0x00ff0a3d00 a; setfattr -n user.empty a; setfattr -n 'user.with=sign' -v x a; setfattr -n 'user.=' a; mkdir d; setfattr -n user.d -v 1 d`,
	"large xattr":   `touch a; setfattr -n user.l -v 0x$(head -c 3000 /dev/zero | tr '\0' 'Z' | od -v -An -tx1 | tr -d ' \n') a`,
	"ACL":           `touch a; setfacl -m u:1000:rw,g:1001:r,m::rw a; mkdir d; setfacl -m u:1000:rwx -d -m g:7:rx d; mkdir -p d/sub; touch d/sub/f; mkfifo p; setfacl -m u:5:rw p`,
	"ACL and sgid":  `mkdir d; setfacl -d -m u:12:rwx,m::rx d; chmod 2770 d; touch d/in; chmod 640 d/in`,
	"capabilities":  `cp /bin/true a; chown 3:3 a; setcap cap_net_raw+ep a; chmod 0755 a`,
	"hard links":    `mkdir d e; echo x >d/a; ln d/a e/b; ln d/a c; ln -s t s; ln s e/s2; mkfifo p; ln p e/p2; touch -h -d @5.5 s`,
	"types":         `mkfifo p; mknod w c 0 0; chmod 600 w; ln -s /etc/passwd abs; ln -s ../../.. up; ln -s loop loop; ln -s nowhere/ d; mkdir empty; touch zero`,
	"names":         `touch -- "$(printf 'new\nline')" "$(printf '\377\376 raw')" "$(printf '%0255d' 0)" '-n' ' ' '\' '*' 'ä' '...' $'\x01' $'tab\t' 'a%b' '"'; mkdir "$(printf 'd\351r')"; echo >"$(printf 'd\351r')/$(printf 'f\351')"`,
	"link targets":  `ln -s "$(printf '\377\n')" raw; ln -s "$(head -c 4095 /dev/zero | tr '\0' t)" long; ln -s ' ' space; ln -s 'trailing/' t`,
	"sparse":        `truncate -s 5M all; truncate -s 1M lead; echo end >>lead; echo start >trail; truncate -s 20M trail; head -c 4096 /dev/zero >zeros; printf '\0' >one`,
	"large":         `head -c 9000001 /dev/urandom >a; head -c 8388608 /dev/urandom >b; head -c 8388609 /dev/urandom >c; setfattr -n user.x -v y a; ln a z`,
	"sorting":       `mkdir a; touch a/x a.b a-b a0; mkdir a.d; touch a.d/y`,
	"git-like":      `mkdir -p .git/objects/aa; echo x >.git/objects/aa/b; chmod 0444 .git/objects/aa/b; chmod 0555 .git/objects/aa`,
	"empty":         ``,
	"newest is old": `touch -d @1 a .`,
}

func TestFidelity(t *testing.T) {
	for name, script := range matrix {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, script)
			to, _ := roundTrip(t, dir)
			expectSame(t, picture(t, dir), picture(t, to))
		})
	}
}

// GNU tar is an independent reader of what Export writes.
func TestExportIsReadByTar(t *testing.T) {
	for _, name := range []string{"owners", "modes", "times", "ACL", "capabilities", "hard links", "types", "names", "link targets", "large", "sorting"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, to := t.TempDir(), t.TempDir()
			sh(t, dir, matrix[name])
			m, packs, _ := create(t, dir)
			var out bytes.Buffer
			g.Expect(archive.Export(t.Context(), packs, m, &out)).To(Succeed())
			file := filepath.Join(t.TempDir(), "x.tar")
			g.Expect(os.WriteFile(file, out.Bytes(), 0o600)).To(Succeed())
			run(t, to, "tar", "--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword", "-xpf", file)
			expectSame(t, picture(t, dir), picture(t, to))
		})
	}
}

// And an independent writer of what Import reads.
func TestImportReadsTar(t *testing.T) {
	for _, format := range []string{"gnu", "pax", "pax --sparse", "gnu --sparse"} {
		t.Run(format, func(t *testing.T) {
			g := NewWithT(t)
			dir, to := t.TempDir(), t.TempDir()
			sh(t, dir, `mkdir -p d/e; echo x >d/e/f; ln d/e/f h; ln -s d s; mkfifo p; truncate -s 1M sp; echo y >>sp; chmod 4711 h; chown 3:4 d
				touch "$(printf '%0200d' 1)"; find . -exec touch -h -d @100 {} +`)
			file := filepath.Join(t.TempDir(), "x.tar")
			sh(t, dir, "tar --format="+format+" -cf "+file+" .")
			in, err := os.Open(file)
			g.Expect(err).NotTo(HaveOccurred())
			defer in.Close()
			report, err := archive.Import(t.Context(), in, to)
			g.Expect(err).NotTo(HaveOccurred())
			digest, err := archive.Digest(t.Context(), to)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(report).To(Equal(digest))
			expectSame(t, picture(t, dir), picture(t, to))
		})
	}
}

func TestDigestSeesEverything(t *testing.T) {
	base := `mkdir d; echo one >d/f; ln d/f g; ln -s t s; mkfifo p; setfattr -n user.a -v 1 d/f; touch -h -d @1000 d/f s p d .`
	dir := t.TempDir()
	sh(t, dir, base)
	before, err := archive.Digest(t.Context(), dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, change := range map[string]string{
		"content":        `echo two >d/f; touch -d @1000 d/f`,
		"name":           `mv p q; touch -d @1000 .`,
		"mode":           `chmod 600 d/f`,
		"owner":          `chown 5 d/f`,
		"group":          `chgrp 5 d/f`,
		"time":           `touch -d @1000.000000001 d/f`,
		"directory time": `touch -d @1001 d`,
		"root mode":      `chmod 700 .`,
		"target":         `ln -sfn u s; touch -h -d @1000 s .`,
		"xattr value":    `setfattr -n user.a -v 2 d/f`,
		"xattr added":    `setfattr -n user.b -v 2 d/f`,
		"xattr removed":  `setfattr -x user.a d/f`,
		"ACL":            `setfacl -m u:5:r d/f`,
		"link broken":    `cp -a g h; mv h g; touch -d @1000 . g`,
		"removed":        `rm p; touch -d @1000 .`,
		"type":           `rm p; mknod p c 0 0; touch -d @1000 p .`,
		"symlink time":   `touch -h -d @1 s`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			other := t.TempDir()
			sh(t, other, base)
			same, err := archive.Digest(t.Context(), other)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(same.Digest).To(Equal(before.Digest), "equal trees have equal digests")
			sh(t, other, change)
			after, err := archive.Digest(t.Context(), other)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(after.Digest).NotTo(Equal(before.Digest))
		})
	}
}

func TestDeepTree(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	const depth = 700 // more than the descriptors held open; the path is longer than PATH_MAX
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_PATH, 0)
	g.Expect(err).NotTo(HaveOccurred())
	for i := range depth {
		for _, name := range []string{"a", "z"} {
			g.Expect(unix.Mkdirat(fd, fmt.Sprintf("%s%d-sibling", name, i), 0o755)).To(Succeed())
		}
		name := fmt.Sprintf("m%d-a-long-name", i)
		g.Expect(unix.Mkdirat(fd, name, 0o755)).To(Succeed())
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_PATH, 0)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(unix.Close(fd)).To(Succeed())
		fd = next
	}
	f, err := unix.Openat(fd, "leaf", unix.O_CREAT|unix.O_WRONLY, 0o644)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.Close(f)).To(Succeed())
	g.Expect(unix.Linkat(fd, "leaf", fd, "linked", 0)).To(Succeed())
	g.Expect(unix.Close(fd)).To(Succeed())

	open := openDescriptors(t)
	_, report := roundTrip(t, dir)
	g.Expect(report.Dirs).To(BeEquivalentTo(3*depth + 1))
	g.Expect(report.Files).To(BeEquivalentTo(2))
	g.Expect(openDescriptors(t)).To(Equal(open))
	_, _, err = archive.Fingerprint(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return len(entries)
}

func TestRestoreWritesHoles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `truncate -s 200M holes; echo x | dd of=holes bs=1 seek=100M conv=notrunc 2>/dev/null; head -c 3M /dev/zero >zeros`)
	to, report := roundTrip(t, dir)
	g.Expect(report.Bytes).To(BeEquivalentTo(203 << 20))
	var st unix.Stat_t
	g.Expect(unix.Stat(to+"/holes", &st)).To(Succeed())
	g.Expect(st.Blocks * 512).To(BeNumerically("<", 1<<20))
	g.Expect(unix.Stat(to+"/zeros", &st)).To(Succeed())
	g.Expect(st.Blocks).To(BeZero())
}

func TestManyPacks(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	random := rand.NewChaCha8([32]byte{})
	for i := range 40 {
		content := make([]byte, 2<<20)
		_, _ = random.Read(content)
		write(t, dir, fmt.Sprintf("d%d/f", i), string(content))
	}
	m, packs, report := create(t, dir)
	g.Expect(packs).To(HaveLen(3))
	g.Expect(packs[0].Size).To(BeEquivalentTo(archive.PackSize))
	g.Expect(packs[1].Size).To(BeEquivalentTo(archive.PackSize))
	g.Expect(report.Bytes).To(BeEquivalentTo(80 << 20))
	to := t.TempDir()
	var files, bytes int64
	restored, err := archive.Restore(t.Context(), packs, m, to, func(f, b int64) { files, bytes = f, b })
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(restored.Digest).To(Equal(report.Digest))
	g.Expect([]int64{files, bytes}).To(Equal([]int64{40, 80 << 20}))
}

func TestNewestIsTheNewestTime(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	future := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	write(t, dir, "a/b", "x")
	g.Expect(os.Chtimes(filepath.Join(dir, "a/b"), future, future)).To(Succeed())
	report, err := archive.Digest(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Newest).To(BeTemporally("==", future))

	var st unix.Stat_t
	g.Expect(unix.Stat(filepath.Join(dir, "a/b"), &st)).To(Succeed())
	_, newest, err := archive.Fingerprint(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(newest).To(BeTemporally("==", time.Unix(st.Ctim.Sec, st.Ctim.Nsec)), "a time that anybody can set does not count")
}

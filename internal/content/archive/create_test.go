package archive_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

// sh runs a script in dir.
func sh(tb testing.TB, dir, script string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "bash", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	NewWithT(tb).Expect(err).NotTo(HaveOccurred(), "%s: %s", script, out)
	return string(out)
}

func create(tb testing.TB, dir string, o archive.CreateOptions) *archive.Result {
	tb.Helper()
	r, err := archive.Create(tb.Context(), dir, o)
	NewWithT(tb).Expect(err).NotTo(HaveOccurred())
	return r
}

// roundTrip backs dir up, restores it elsewhere, and lets the independent walker compare.
func roundTrip(t *testing.T, dir string) *archive.Result {
	t.Helper()
	g := NewWithT(t)
	s := newPackStore()
	r := create(t, dir, archive.CreateOptions{Sink: s, Source: s})
	to := t.TempDir()
	report, _, err := archive.Restore(t.Context(), r.Root, to, archive.RestoreOptions{Source: s})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Digest).To(Equal(r.Report.Digest))
	expectEqualTrees(t, independentWalk(t, dir), independentWalk(t, to))
	return r
}

// matrix is a tree with everything that the format promises to keep, one promise each.
var matrix = map[string]string{
	"owners":        `touch a; chown 1:2 a; touch b; chown 4294967294:4294967293 b; mkdir d; chown 5:6 d; ln -s x l; chown -h 7:8 l`,
	"modes":         `for m in 0000 0400 0644 0755 1777 2755 4755 6711 7777; do touch f$m; chmod $m f$m; mkdir d$m; chmod $m d$m; done`,
	"root":          `touch x; chmod 2751 .; chown 9:10 .; setfattr -n user.root -v yes .; setfacl -d -m u:11:rwx .; touch -d '2001-02-03 04:05:06.789' .`,
	"times":         `touch -d '2024-01-02 03:04:05.123456789' ns; mkdir d; touch d/x; touch -d '1999-12-31 23:59:59.999999999' d; ln -s x l; touch -h -d '2010-10-10 10:10:10.5' l`,
	"odd times":     `touch -d @-1.5 a; touch -d @-2147483648 b; touch -d @0 c; touch -d @4294967296.000000001 e; touch -d @8589934592 f`,
	"xattrs":        `touch a; setfattr -n user.a -v text a; setfattr -n user.bin -v 0x00ff0a3d00 a; setfattr -n user.empty a; setfattr -n 'user.with=sign' -v x a; setfattr -n 'user.=' a; mkdir d; setfattr -n user.d -v 1 d; echo x >c; setfattr -n user.c -v 3 c`,
	"large xattr":   `touch a; setfattr -n user.l -v 0x$(head -c 3000 /dev/zero | tr '\0' 'Z' | od -v -An -tx1 | tr -d ' \n') a`,
	"ACL":           `touch a; setfacl -m u:1000:rw,g:1001:r,m::rw a; mkdir d; setfacl -m u:1000:rwx -d -m g:7:rx d; mkdir -p d/sub; touch d/sub/f; mkfifo p; setfacl -m u:5:rw p`,
	"ACL and sgid":  `mkdir d; setfacl -d -m u:12:rwx,m::rx d; chmod 2770 d; touch d/in; chmod 640 d/in`,
	"capabilities":  `cp /bin/true a; chown 3:3 a; setcap cap_net_raw+ep a; chmod 0755 a`,
	"hard links":    `mkdir d e; echo x >d/a; ln d/a e/b; ln d/a c; ln -s t s; ln s e/s2; mkfifo p; ln p e/p2; touch -h -d @5.5 s`,
	"types":         `mkfifo p; mknod w c 0 0; chmod 600 w; ln -s /etc/passwd abs; ln -s ../../.. up; ln -s loop loop; ln -s nowhere/ d; mkdir empty; touch zero`,
	"names":         `touch -- "$(printf 'new\nline')" "$(printf '\377\376 raw')" "$(printf '%0255d' 0)" '-n' ' ' '\' '*' 'ä' '...' $'\x01' $'tab\t' 'a%b' '"'; mkdir "$(printf 'd\351r')"; echo >"$(printf 'd\351r')/$(printf 'f\351')"`,
	"link targets":  `ln -s "$(printf '\377\n')" raw; for n in 4095 1023; do ln -s "$(head -c $n /dev/zero | tr '\0' t)" long$n || test $n = 4095 -a $(stat -f -c %T .) = xfs || exit 1; done; ln -s ' ' space; ln -s 'trailing/' t`,
	"sparse":        `truncate -s 5M all; truncate -s 1M lead; echo end >>lead; echo start >trail; truncate -s 20M trail; head -c 4096 /dev/zero >zeros; printf '\0' >one; truncate -s 1T huge; echo x | dd of=huge bs=1 seek=500G conv=notrunc status=none; truncate -s 1T void`,
	"large":         `head -c 9000001 /dev/urandom >a; head -c 8388608 /dev/urandom >b; head -c 8388609 /dev/urandom >c; setfattr -n user.x -v y a; ln a z; head -c 4194304 /dev/urandom >d; head -c 4194305 /dev/urandom >e`,
	"sorting":       `mkdir a; touch a/x a.b a-b a0; mkdir a.d; touch a.d/y`,
	"overlay":       `mknod gone c 0 0; mkdir d; setfattr -n trusted.overlay.opaque -v y d; setfattr -n trusted.overlay.opaque -v x .`,
	"git-like":      `mkdir -p .git/objects/aa; echo x >.git/objects/aa/b; chmod 0444 .git/objects/aa/b; chmod 0555 .git/objects/aa`,
	"empty":         ``,
	"newest is old": `touch -d @1 a .`,
	"many":          `for i in $(seq 40); do mkdir d$i; for j in $(seq 80); do echo $i $j >d$i/f$j; done; done`,
	"wide":          `seq 5000 | xargs touch`,
}

func TestFidelity(t *testing.T) {
	for name, script := range matrix {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, script)
			roundTrip(t, dir)
		})
	}
}

// Whoever keeps a result, until it is committed, does not keep the buffers and what else it took to make it.
func TestResultHoldsNothingElse(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	sh(t, dir, `echo x >f`)
	gone := make(chan struct{})
	made := func() *archive.Result {
		sink := newPackStore()
		runtime.AddCleanup(sink, func(c chan struct{}) { close(c) }, gone)
		return create(t, dir, archive.CreateOptions{Sink: sink})
	}
	r := made()
	g.Eventually(func() chan struct{} { runtime.GC(); return gone }).Should(BeClosed())
	g.Expect(r.NewPacks).To(HaveLen(1))
}

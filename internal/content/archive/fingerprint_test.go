package archive_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/content/archive"
)

func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	sum, _, err := archive.Fingerprint(t.Context(), dir)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return sum
}

// Everything here leaves sizes and mtimes as they were.
func TestFingerprintSeesStealthModification(t *testing.T) {
	for name, change := range map[string]string{
		"same size, mtime restored":         `touch -r d/f ref; echo two >d/f; touch -r ref d/f; rm ref; touch -d @1000 .`,
		"written through a mapping":         `touch -r d/f /tmp/ref.$$; python3 -c 'import mmap; f=open("d/f","r+b"); m=mmap.mmap(f.fileno(),0); m[0:1]=b"X"; m.flush()'; touch -r /tmp/ref.$$ d/f; rm /tmp/ref.$$`,
		"renamed over by a twin":            `cp -p d/f d/n; mv d/n d/f; touch -d @1000 d`,
		"inode swapped":                     `mv d/f x; cp -p x d/f; rm x; touch -d @1000 d .`,
		"mode":                              `chmod 600 d/f`,
		"owner":                             `chown 5 d/f`,
		"attribute":                         `setfattr -n user.a -v 2 d/f`,
		"attribute of a directory":          `setfattr -n user.a -v 2 d`,
		"attribute of the root":             `setfattr -n user.a -v 2 .; touch -d @1000 .`,
		"ACL":                               `setfacl -m u:5:r d/f`,
		"default ACL":                       `setfacl -d -m u:5:r d`,
		"hard link added":                   `ln d/f h; touch -d @1000 .`,
		"hard link removed":                 `rm g; touch -d @1000 .`,
		"hard link added out of the tree":   `ln d/f "$OUT/h"`,
		"symbolic link replaced":            `ln -sfn u s; touch -h -d @1000 s .`,
		"renamed":                           `mv d e; touch -d @1000 .`,
		"swapped names":                     `mv d/f t; mv k d/f; mv t k; touch -d @1000 d .`,
		"time of a directory":               `touch -d @1001 d`,
		"mode of the root":                  `chmod 711 .`,
		"FIFO for a file of the same name":  `rm k; mkfifo k; touch -d @1000 k .`,
		"directory for a file":              `rm k; mkdir k; touch -d @1000 k .`,
		"empty file for an empty directory": `rmdir v; touch v; touch -d @1000 v .`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("OUT", t.TempDir())
			sh(t, dir, `mkdir d v; echo one >d/f; echo two >k; ln d/f g; ln -s t s; setfattr -n user.a -v 1 d/f; touch -h -d @1000 d/f s k v d .`)
			before := fingerprint(t, dir)
			NewWithT(t).Expect(fingerprint(t, dir)).To(Equal(before))
			sh(t, dir, change)
			NewWithT(t).Expect(fingerprint(t, dir)).NotTo(Equal(before))
		})
	}
}

func TestFingerprintIgnores(t *testing.T) {
	for name, change := range map[string]string{
		"reading":           `cat d/f >/dev/null; ls -R . >/dev/null`,
		"renaming the root": `mv "$PWD" "$PWD.x"; mv "$PWD.x" "$PWD"`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, `mkdir d; echo one >d/f`)
			before := fingerprint(t, dir)
			sh(t, dir, change)
			NewWithT(t).Expect(fingerprint(t, dir)).To(Equal(before))
		})
	}
}

func TestFingerprintOfNothing(t *testing.T) {
	_, _, err := archive.Fingerprint(t.Context(), t.TempDir()+"/none")
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("none: no such file or directory")))
}

package cmd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/config"
)

func TestMissingProgramsAreNamedWithTheirPackages(t *testing.T) {
	lvm := func(filesystem string) map[string]config.Class {
		return map[string]config.Class{"fast": {Driver: config.DriverLVM, LVM: config.LVM{Filesystem: filesystem}}}
	}
	none := map[string]config.Class{"default": {Driver: config.DriverDirectory}}
	tests := map[string]struct {
		classes map[string]config.Class
		git     string
		there   []string
		want    string
	}{
		"all there":     {lvm("xfs"), "git", []string{"git", "git-lfs", "lvm", "thin_check", "mkfs.xfs"}, ""},
		"not needed":    {none, "git", []string{"git", "git-lfs"}, ""},
		"git elsewhere": {none, "/bin/sh", []string{"git-lfs"}, ""},
		"git": {none, "/nowhere/git", []string{"git", "git-lfs"},
			`"msg"="use the image that the Dockerfile makes, or add these packages of Debian to yours: git" ` +
				`"error"="programs are missing: /nowhere/git (workspaces from repositories)"`},
		"of a class": {lvm("ext4"), "git", []string{"git", "git-lfs", "mkfs.xfs"},
			`"msg"="use the image that the Dockerfile makes, or add these packages of Debian to yours: e2fsprogs lvm2 thin-provisioning-tools" ` +
				`"error"="programs are missing: lvm (volume class fast), mkfs.ext4 (volume class fast), thin_check (volume class fast)"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g, dir, said := NewWithT(t), t.TempDir(), ""
			for _, name := range tt.there {
				g.Expect(os.WriteFile(filepath.Join(dir, name), nil, 0o755)).To(Succeed())
			}
			c := config.Default()
			c.Content.Git.Program, c.Volumes.Classes = tt.git, tt.classes
			tellPrograms(funcr.New(func(_, args string) { said += args }, funcr.Options{}), c, []string{"/nowhere", dir})
			g.Expect(said).To(Equal(tt.want))
		})
	}
}

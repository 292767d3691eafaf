package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// program is one that the daemon runs.
type program struct {
	// name as it is searched for, or its path.
	name string
	// pack is Debian's package of it.
	pack string
	// use says who needs it.
	use string
}

// programs are those that the daemon runs with a configuration.
func programs(cfg config.Config) []program {
	all := []program{
		{cfg.Content.Git.Program, "git", "workspaces from repositories"},
		{"git-lfs", "git-lfs", "repositories with large files"},
	}
	for name, class := range cfg.Volumes.Classes {
		if class.Driver != config.DriverLVM {
			continue
		}
		use := "volume class " + name
		all = append(all, program{"lvm", "lvm2", use}, program{"thin_check", "thin-provisioning-tools", use})
		switch class.Filesystem {
		case "xfs":
			all = append(all, program{"mkfs.xfs", "xfsprogs", use})
		case "ext4":
			all = append(all, program{"mkfs.ext4", "e2fsprogs", use})
		}
	}
	return all
}

// programDirs are where programs are searched for, whatever PATH the daemon was started with.
func programDirs() []string {
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// tellPrograms logs which programs are not there, and what to do about it. Whatever does not need them goes on.
func tellPrograms(logger logr.Logger, cfg config.Config, dirs []string) {
	var names, packs []string
	for _, p := range programs(cfg) {
		if !p.found(dirs) {
			names = append(names, fmt.Sprintf("%s (%s)", p.name, p.use))
			packs = append(packs, p.pack)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	slices.Sort(packs)
	logger.Error(fmt.Errorf("programs are missing: %s", strings.Join(names, ", ")),
		"use the image that the Dockerfile makes, or add these packages of Debian to yours: "+strings.Join(slices.Compact(packs), " "))
}

func (p program) found(dirs []string) bool {
	if filepath.IsAbs(p.name) {
		dirs = []string{""}
	}
	return slices.ContainsFunc(dirs, func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, p.name))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

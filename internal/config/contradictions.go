package config

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// contradictions finds what is right by itself and cannot be together. The key that is named is one that may be changed; the words name
// the other one.
func (c Config) contradictions() error {
	return errors.Join(c.servers(), c.sockets(), c.placesOfBackups(), c.placesOfVolumes())
}

// servers refuses addresses of which only one server could have one.
func (c Config) servers() error {
	var errs []error
	if clash(c.Metrics.Address, c.Health.Address) {
		errs = append(errs, contradicts("metrics.address", "health.address", "must not be that of health, %s", c.Health.Address))
	}
	if address := c.Service.Address; clash(address, c.Health.Address) || clash(address, c.Metrics.Address) {
		errs = append(errs, wrong("service.address", "must not be that of health or metrics, %s", address))
	}
	return errors.Join(errs...)
}

// clash says whether nobody can listen at two addresses at a time.
func clash(a, b string) bool {
	x, xPort := listening(a)
	y, yPort := listening(b)
	return xPort != 0 && xPort == yPort && (x == y || everywhere(x, y) || everywhere(y, x))
}

// everywhere says whether listening at the first address takes the port of the second one, too.
func everywhere(all, one netip.Addr) bool {
	return all.IsUnspecified() && (all.Is6() || one.Is4())
}

// listening is what a server listens at; port 0 if the address is none.
func listening(hostPort string) (netip.Addr, uint64) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return netip.Addr{}, 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.Addr{}, 0
	}
	switch host {
	case "":
		return netip.IPv6Unspecified(), n
	case "localhost":
		host = "127.0.0.1"
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, 0
	}
	return at.Unmap(), n
}

// sockets refuses two in one directory: that of the service is the daemon's alone.
func (c Config) sockets() error {
	if c.Service.Socket == "" || !c.CSI.Enabled() || filepath.Dir(c.Service.Socket) != filepath.Dir(c.CSI.Socket) {
		return nil
	}
	return contradicts("service.socket", "csi.socket", "must lie in a directory of its own, not in that of csi.socket, %s", c.CSI.Socket)
}

// placesOfBackups keeps backups apart from what they are to save, and their key from them.
func (c Config) placesOfBackups() error {
	if c.Storage.Kind != KindFilesystem || c.Storage.Filesystem == nil {
		return nil
	}
	store := c.Storage.Filesystem.Path
	var errs []error
	if nested(store, c.Content.WorkingArea) {
		errs = append(errs, wrong("storage.filesystem.path",
			"must not be within content.workingArea, nor the other way round: backups on the disk that they are to save are lost with it"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Volumes.Classes)) {
		if dir := c.Volumes.Classes[name].Path; nested(store, dir) {
			errs = append(errs, wrong("storage.filesystem.path",
				"must not be within the directory of volume class %s, %s, nor the other way round: backups on the disk that they are to save are lost with it", name, dir))
		}
	}
	if below(c.Storage.KeyFile, store) {
		errs = append(errs, wrong("storage.keyFile", "must not be within storage.filesystem.path: who reads the store would have the key to it"))
	}
	return errors.Join(errs...)
}

// placesOfVolumes keeps volumes apart from what others take for theirs.
func (c Config) placesOfVolumes() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Volumes.Classes)) {
		key, dir := "volumes.classes."+name+".path", c.Volumes.Classes[name].Path
		if below(c.Content.WorkingArea, dir) {
			errs = append(errs, wrong(key, "must not be content.workingArea, nor contain it: the daemon's own files are no volumes"))
		}
		if c.CSI.Enabled() && nested(dir, c.CSI.KubeletDir) {
			errs = append(errs, contradicts(key, "csi.kubeletDir", "must not be within csi.kubeletDir, nor the other way round: the kubelet removes what it does not know"))
		}
	}
	return errors.Join(errs...)
}

// nested says whether one of two absolute paths is the other or lies below it.
func nested(a, b string) bool { return below(a, b) || below(b, a) }

// below says whether an absolute path is a directory, which is absolute as well, or lies below it.
func below(path, dir string) bool {
	if !filepath.IsAbs(path) || !filepath.IsAbs(dir) {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

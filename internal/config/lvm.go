package config

import (
	"errors"
	"regexp"
)

// LVM is what a class of the driver lvm has besides.
type LVM struct {
	// VolumeGroup of the thin pool that the volumes come from.
	VolumeGroup string `json:"volumeGroup,omitempty"`
	// ThinPool that the volumes come from. It exists; docs/volumes.md tells how it is made.
	ThinPool string `json:"thinPool,omitempty"`
	// Filesystem in the volumes: xfs or ext4.
	Filesystem string `json:"filesystem,omitempty" schema:"enum=xfs|ext4"`
	// Templates is how many volumes are kept as they were when a snapshot had just been restored: workspaces that begin with the same
	// snapshot start at once then.
	Templates int `json:"templates,omitempty"`
	// MinSize is the least size of a volume, "1Gi" for example; what the file system needs if it is empty.
	MinSize Size `json:"minSize,omitzero"`
}

var lvmName = regexp.MustCompile(`^[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,100}$`)

// pool names the thin pool as LVM does.
func (l LVM) pool() string { return l.VolumeGroup + "/" + l.ThinPool }

func (l LVM) validate(key string) error {
	var errs []error
	for field, name := range map[string]string{"volumeGroup": l.VolumeGroup, "thinPool": l.ThinPool} {
		if !lvmName.MatchString(name) {
			errs = append(errs, wrong(key+"."+field, "must be the name that lvs shows, not %q", name))
		}
	}
	if l.Templates < 0 {
		errs = append(errs, wrong(key+".templates", "must not be negative"))
	}
	return errors.Join(append(errs, oneOf(key+".filesystem", l.Filesystem, "xfs", "ext4"))...)
}

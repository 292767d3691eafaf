package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/api/resource"
)

// LVM is what a class of the driver lvm has besides.
type LVM struct {
	// VolumeGroup and ThinPool name the thin pool that the volumes come from. It exists; docs/volumes.md tells how it is made.
	VolumeGroup string `json:"volumeGroup,omitempty"`
	ThinPool    string `json:"thinPool,omitempty"`
	// Filesystem in the volumes: xfs or ext4.
	Filesystem string `json:"filesystem,omitempty"`
	// Overcommit lets the sizes of all volumes be more than the pool has, together.
	Overcommit bool `json:"overcommit,omitempty"`
	// Templates is how many volumes are kept as they were when a snapshot had just been restored: workspaces that begin with the same
	// snapshot start at once then.
	Templates int `json:"templates,omitempty"`
	// MinSize is the least size of a volume, "1Gi" for example; what the file system needs if it is empty.
	MinSize Size `json:"minSize,omitzero"`
}

var lvmName = regexp.MustCompile(`^[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,100}$`)

func (l LVM) validate(key string) error {
	var errs []error
	for field, name := range map[string]string{"volumeGroup": l.VolumeGroup, "thinPool": l.ThinPool} {
		if !lvmName.MatchString(name) {
			errs = append(errs, fmt.Errorf("%s.%s: must be the name that lvs shows, not %q", key, field, name))
		}
	}
	if l.Templates < 0 {
		errs = append(errs, fmt.Errorf("%s.templates: must not be negative", key))
	}
	if l.MinSize < 0 {
		errs = append(errs, fmt.Errorf("%s.minSize: must not be negative", key))
	}
	return errors.Join(append(errs, oneOf(key+".filesystem", l.Filesystem, "xfs", "ext4"))...)
}

// Size is a number of bytes, written as Kubernetes does: "20Gi", "500M".
type Size int64

// UnmarshalJSON reads a quoted quantity.
func (s *Size) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf(`a size is a text such as "20Gi", not %s`, data)
	}
	quantity, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf(`a size is a text such as "20Gi", not %q`, text)
	}
	*s = Size(quantity.Value())
	return nil
}

// MarshalJSON writes the size as UnmarshalJSON reads it.
func (s Size) MarshalJSON() ([]byte, error) {
	return json.Marshal(resource.NewQuantity(int64(s), resource.BinarySI).String())
}

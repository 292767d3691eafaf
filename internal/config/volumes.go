package config

import (
	"errors"
	"fmt"
	"strings"
)

// Drivers of volume classes.
const (
	// DriverDirectory keeps volumes in plain directories, which nothing limits.
	DriverDirectory = "directory"
	// DriverQuota limits directories by project quota.
	DriverQuota = "quota"
	// DriverLVM makes thin logical volumes.
	DriverLVM = "lvm"
)

// Volumes are the kinds of volumes that this node offers.
type Volumes struct {
	// Classes by name; workspaces use "default" unless they say otherwise.
	Classes map[string]Class `json:"classes"`
}

// Class is one kind of volume.
type Class struct {
	// Driver that makes the volumes: directory, quota or lvm.
	Driver string `json:"driver"`
	// Path of the volumes; below the working area if empty.
	Path string `json:"path"`
	// AllowUnlimited accepts volumes whose size is not limited: because the driver cannot, or, for now, the disk.
	AllowUnlimited bool `json:"allowUnlimited"`
	// Projects are the project ids that the driver quota may use; 200000 to 299999 if it is left out. Classes may share them.
	Projects *Projects `json:"projects,omitempty"`

	LVM
}

// Projects is a range of project ids, both ends included.
type Projects struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// CanLimit says whether the driver can limit the size of a volume, given the right disk.
func (c Class) CanLimit() bool { return c.Driver != "" && c.Driver != DriverDirectory }

func (v Volumes) validate() error {
	if len(v.Classes) == 0 {
		return errors.New(`volumes.classes: at least one class is needed, usually "default"`)
	}
	var errs []error
	if n := len(v.Classes); n > maxClasses {
		errs = append(errs, fmt.Errorf("volumes.classes: at most %d classes are possible, not %d", maxClasses, n))
	}
	for name, class := range v.Classes {
		errs = append(errs, className(name), class.validate("volumes.classes."+name))
	}
	return errors.Join(errs...)
}

// maxClasses is how many a WorkspaceNode can report.
const maxClasses = 32

// className refuses a name that would be more than that: it names a directory, and is a key in the reports.
func className(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if name == "" || len(name) > 63 || strings.Trim(name, letters) != "" || strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-") {
		return fmt.Errorf("volumes.classes: the name of a class has 1 to 63 small letters, digits and inner hyphens, not %q", name)
	}
	return nil
}

func (c Class) validate(key string) error {
	errs := []error{oneOf(key+".driver", c.Driver, DriverDirectory, DriverQuota, DriverLVM)}
	if c.Path != "" {
		errs = append(errs, absolute(key+".path", c.Path))
	}
	switch {
	case c.Driver == DriverLVM:
		errs = append(errs, c.LVM.validate(key))
	case c.LVM != LVM{}:
		errs = append(errs, fmt.Errorf("%s: volumeGroup, thinPool, filesystem, overcommit, templates and minSize are for the driver %s", key, DriverLVM))
	}
	if p := c.Projects; p != nil {
		switch {
		case c.Driver != DriverQuota:
			errs = append(errs, fmt.Errorf("%s.projects: only the driver %q has them", key, DriverQuota))
		case p.First == 0 || p.Last < p.First:
			errs = append(errs, fmt.Errorf("%s.projects: must begin above 0 and not end before, not from %d to %d", key, p.First, p.Last))
		}
	}
	return errors.Join(errs...)
}

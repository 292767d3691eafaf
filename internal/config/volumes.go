package config

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
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

// maxClasses is how many a WorkspaceNode reports.
const maxClasses = 32

// Volumes are the kinds of volumes that this node offers.
type Volumes struct {
	// Classes by name; workspaces use "default" unless they say otherwise.
	Classes map[string]Class `json:"classes" schema:"required"`
}

// Class is one kind of volume.
type Class struct {
	// Driver that makes the volumes: directory, quota or lvm.
	Driver string `json:"driver" schema:"required,enum=directory|quota|lvm"`
	// Path of the volumes; below the working area if empty.
	Path string `json:"path"`
	// AllowUnlimited accepts volumes whose size is not limited: because the driver cannot, or, for now, the disk.
	AllowUnlimited bool `json:"allowUnlimited"`
	// Overcommit lets the sizes of all volumes be more than the disk or the thin pool has, together. If it is left out, it is true for the
	// driver directory, whose sizes nothing keeps, and false for the others.
	Overcommit *bool `json:"overcommit,omitempty"`
	// Projects are the project ids that the driver quota may use; 200000 to 299999 if it is left out. Classes may share them.
	Projects *Projects `json:"projects,omitempty"`

	LVM
}

// Projects is a range of project ids, both ends included.
type Projects struct {
	// First id of the range, above 0.
	First uint32 `json:"first" schema:"required,min=1"`
	// Last id of the range.
	Last uint32 `json:"last" schema:"required,min=1"`
}

// CanLimit says whether the driver can limit the size of a volume, given the right disk.
func (c Class) CanLimit() bool { return c.Driver != "" && c.Driver != DriverDirectory }

// Overcommits says whether the sizes of all volumes may be more than there is, together.
func (c Class) Overcommits() bool {
	if c.Overcommit != nil {
		return *c.Overcommit
	}
	return !c.CanLimit()
}

// validate needs the working area, below which classes lie that have no path of their own.
func (v Volumes) validate(area string) error {
	if len(v.Classes) == 0 {
		return wrong("volumes.classes", `at least one class is needed, usually "default"`)
	}
	var errs []error
	if n := len(v.Classes); n > maxClasses {
		errs = append(errs, wrong("volumes.classes", "must be at most %d, not %d", maxClasses, n))
	}
	names := slices.Sorted(maps.Keys(v.Classes))
	for i, name := range names {
		errs = append(errs, v.Classes[name].validate("volumes.classes."+name))
		for _, other := range names[:i] {
			errs = append(errs, v.apart(area, name, other))
		}
	}
	return errors.Join(errs...)
}

// apart refuses two classes in one directory or thin pool: each would take the other's volumes for its own, or for strangers'.
func (v Volumes) apart(area, name, other string) error {
	if l := v.Classes[name].LVM; l.ThinPool != "" && l.pool() == v.Classes[other].pool() {
		return wrong("volumes.classes."+name, "its thin pool %s must not be that of class %s", l.pool(), other)
	}
	a, b := v.Classes[name].dir(area, name), v.Classes[other].dir(area, other)
	if !nested(a, b) {
		return nil
	}
	return wrong("volumes.classes."+name, "its directory %s must not be, contain, or lie in that of class %s, %s", a, other, b)
}

// dir is the directory of a class.
func (c Class) dir(area, name string) string {
	if c.Path != "" {
		return c.Path
	}
	return filepath.Join(area, "volumes", name)
}

func (c Class) validate(key string) error {
	errs := []error{oneOf(key+".driver", c.Driver, DriverDirectory, DriverQuota, DriverLVM)}
	errs = append(errs, absoluteIfSet(key+".path", c.Path))
	switch {
	case c.Driver == DriverLVM:
		errs = append(errs, c.LVM.validate(key))
	case c.LVM != LVM{}:
		errs = append(errs, wrong(key, "volumeGroup, thinPool, filesystem, templates and minSize are for the driver %s", DriverLVM))
	}
	if p := c.Projects; p != nil {
		switch {
		case c.Driver != DriverQuota:
			errs = append(errs, wrong(key+".projects", "only the driver %q has them", DriverQuota))
		case p.First == 0 || p.Last < p.First:
			errs = append(errs, wrong(key+".projects", "must begin above 0 and not end before, not from %d to %d", p.First, p.Last))
		}
	}
	return errors.Join(errs...)
}

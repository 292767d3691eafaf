package controllers

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Usable says which disks of the node cannot be used, by the last look at them; nil if all can.
func (r *WorkspaceReconciler) Usable() error {
	d, known := r.guard.last()
	if !known {
		return errors.New("the disks have not been looked at yet")
	}
	var errs []error
	if d.area.err != nil {
		errs = append(errs, fmt.Errorf("working area: %w", d.area.err))
	}
	for _, class := range slices.Sorted(maps.Keys(d.classes)) {
		if err := d.classes[class].err; err != nil {
			errs = append(errs, fmt.Errorf("volume class %s: %w", class, err))
		}
	}
	return errors.Join(errs...)
}

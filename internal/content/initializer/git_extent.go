package initializer

import (
	"regexp"
	"strings"
)

const (
	maxSparse = 100
	maxDepth  = 1_000_000
)

// validateExtent checks how much of a repository is wanted.
func validateExtent(spec GitSpec) error {
	if spec.Depth < 0 || spec.Depth > maxDepth {
		return newError(Invalid, nil, "depth must be between 0 (everything) and %d, not %d", maxDepth, spec.Depth)
	}
	if spec.Filter != "" && !regexp.MustCompile(`^blob:(none|limit=[0-9]{1,9}[kmg]?)$`).MatchString(spec.Filter) {
		return newError(Invalid, nil, "filter %q is neither blob:none nor blob:limit= and a size", spec.Filter)
	}
	if len(spec.Sparse) > maxSparse {
		return newError(Invalid, nil, "at most %d directories can be checked out sparsely, not %d", maxSparse, len(spec.Sparse))
	}
	for _, dir := range spec.Sparse {
		if dir == "" || strings.ContainsAny(dir, `*?[]\!#`) {
			return newError(Invalid, nil, "sparse directory %q is empty or has characters that are not allowed", dir)
		}
		if err := validatePath("sparse directory", dir); err != nil {
			return err
		}
	}
	return nil
}

package initializer

import "context"

// Empty leaves the target empty and gives it to its owner, mode 0755.
func Empty(ctx context.Context, t Target) (Result, error) {
	if err := prepare(ctx, t); err != nil {
		return Result{}, err
	}
	return Result{Source: SourceEmpty}, nil
}

package content_test

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// audited is a driver whose limits can be got round.
type audited struct {
	volume.Driver
	found error
}

func (d *audited) Audit(context.Context, string, *volume.Usage) error { return d.found }

func TestS9_EscapedContentIsNotedUntilItIsSeenToBeBack(t *testing.T) {
	f := newFixture(t)
	a := f.node("a")
	a.fill(1)
	driver := &audited{Driver: a.Volumes["default"]}
	a.Volumes["default"] = driver
	escaped := &volume.EscapedError{ID: uid, Reason: "a file is elsewhere"}
	for _, step := range []struct {
		found error
		want  string
	}{
		{nil, ""},
		{escaped, escaped.Error()},
		{errors.New("the disk does not answer"), escaped.Error()},
		{nil, ""},
	} {
		driver.found = step.found
		a.backup(1)
		f.Expect(a.journal().Usage.Escaped).To(Equal(step.want))
	}
}

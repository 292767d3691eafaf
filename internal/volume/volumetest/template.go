package volumetest

import (
	"errors"
	"os"
	"path/filepath"

	. "github.com/onsi/gomega"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

// templates makes two workspaces of one template, which outlives what it was made of.
func (s *suite) templates() {
	driver, ok := s.driver.(volume.Templater)
	if !ok {
		return
	}
	s.Expect(driver.Templates(s.ctx)).To(BeEmpty())
	s.filled("a")
	for range 2 {
		s.Expect(driver.KeepTemplate(s.ctx, "a", "t1")).To(Succeed())
	}
	s.Expect(s.driver.Publish(s.ctx, "a")).To(Succeed())
	s.Expect(driver.KeepTemplate(s.ctx, "a", "t2")).To(MatchError(volume.ErrUnfinished), "users may have changed it")
	s.Expect(s.driver.Remove(s.ctx, "a")).To(Succeed())
	s.Expect(driver.Templates(s.ctx)).To(HaveExactElements(And(HaveField("Name", "t1"), HaveField("Bytes", BeNumerically("<", gibibyte)))))
	s.Expect(s.driver.List(s.ctx)).To(BeEmpty(), "a template is no volume")
	s.Expect(s.driver.Sweep(s.ctx)).To(Succeed())

	s.refused(driver)
	for id, size := range map[string]int64{"b": gibibyte, "c": 2 * gibibyte} {
		s.begins(driver, id, size)
	}
	s.Expect(os.WriteFile(filepath.Join(s.driver.Path("b", volume.Staged), "file"), []byte("second"), 0o600)).To(Succeed())
	evicted, err := driver.CloneTemplate(s.ctx, "t1", volume.Spec{ID: "d", Size: gibibyte}, func(m volume.Marker, _ string) (volume.Marker, error) {
		return volume.Marker{UID: "d", Prepared: m.Content}, driver.DropTemplate(s.ctx, "t1") // evicted while it is copied
	})
	s.Expect(err).NotTo(HaveOccurred())
	s.at(evicted, volume.Staged, "first")
	s.Expect(driver.DropTemplate(s.ctx, "t1")).To(Succeed(), "it is gone already")
	s.Expect(driver.Templates(s.ctx)).To(BeEmpty())
	s.Expect(os.ReadFile(filepath.Join(s.driver.Path("c", volume.Staged), "file"))).To(BeEquivalentTo("first"))
	_, err = driver.CloneTemplate(s.ctx, "t1", volume.Spec{ID: "e", Size: gibibyte}, func(m volume.Marker, _ string) (volume.Marker, error) { return m, nil })
	s.Expect(err).To(MatchError(volume.ErrNotFound))
}

// refused tries what leaves no volume.
func (s *suite) refused(driver volume.Templater) {
	marker := func(m volume.Marker, _ string) (volume.Marker, error) { return m, nil }
	_, err := driver.CloneTemplate(s.ctx, "t2", volume.Spec{ID: "x", Size: gibibyte}, marker)
	s.Expect(err).To(MatchError(volume.ErrNotFound))
	_, err = driver.CloneTemplate(s.ctx, "t1", volume.Spec{ID: "x", Size: gibibyte / 2}, marker)
	s.Expect(err).To(MatchError(volume.ErrShrink))
	other := errors.New("not what it should be")
	_, err = driver.CloneTemplate(s.ctx, "t1", volume.Spec{ID: "x", Size: gibibyte}, func(volume.Marker, string) (volume.Marker, error) {
		return volume.Marker{}, other
	})
	s.Expect(err).To(MatchError(other))
	s.Expect(s.driver.List(s.ctx)).To(BeEmpty())
	_, err = s.driver.Get(s.ctx, "x")
	s.Expect(err).To(MatchError(volume.ErrNotFound))
	s.must("x")
	s.Expect(s.driver.Remove(s.ctx, "x")).To(Succeed())
}

// begins makes a volume of the template, and once more, which changes nothing.
func (s *suite) begins(driver volume.Templater, id string, size int64) {
	spec := volume.Spec{ID: id, Size: size, Inodes: 1000}
	for range 2 {
		info, err := driver.CloneTemplate(s.ctx, "t1", spec, func(m volume.Marker, path string) (volume.Marker, error) {
			s.Expect(m.UID).To(Equal("a"))
			s.Expect(m.Content.IsAt(path)).To(BeTrue())
			return volume.Marker{UID: id, Claim: 8, Prepared: m.Content}, nil
		})
		s.Expect(err).NotTo(HaveOccurred())
		s.Expect(info).To(And(HaveField("Size", size), HaveField("Inodes", BeEquivalentTo(1000)), HaveField("Limited", true)))
		m, err := volume.ReadMarker(info)
		s.Expect(err).NotTo(HaveOccurred())
		s.Expect([]any{m.UID, m.Claim, m.Content}).To(Equal([]any{id, int64(8), (*volume.Content)(nil)}))
		s.at(info, volume.Staged, "first")
		s.Expect(m.Prepared.IsAt(s.driver.Path(id, volume.Staged))).To(BeTrue(), "it is the same directory in every clone")
		s.Expect(s.driver.Publish(s.ctx, id)).To(MatchError(volume.ErrUnfinished), "whose it is has to be said first")
	}
}

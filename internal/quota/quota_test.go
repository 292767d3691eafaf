package quota

import (
	"path/filepath"
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/volume"
)

func TestLimitsAreWholeBlocksAndLeaveRoomWhileContentIsMade(t *testing.T) {
	const mebibyte = 1 << 20
	for _, test := range []struct {
		spec           volume.Spec
		exact, staging limits
	}{
		{volume.Spec{}, limits{}, limits{}},
		{volume.Spec{Size: 1}, limits{bytes: 4096}, limits{bytes: 4096 + mebibyte}},
		{volume.Spec{Size: 8191, Inodes: 1}, limits{4096, 1}, limits{4096 + mebibyte, 65}},
		{volume.Spec{Size: mebibyte}, limits{bytes: mebibyte}, limits{bytes: 2 * mebibyte}},
		{volume.Spec{Size: 128 * mebibyte, Inodes: 6400}, limits{128 * mebibyte, 6400}, limits{130 * mebibyte, 6500}},
		{volume.Spec{Inodes: 640}, limits{inodes: 640}, limits{inodes: 704}},
	} {
		g := NewWithT(t)
		g.Expect(exactly(test.spec)).To(Equal(test.exact), "%+v", test.spec)
		g.Expect(filling(test.spec)).To(Equal(test.staging), "%+v", test.spec)
	}
}

func TestStructuresHaveTheKernelsSizes(t *testing.T) {
	g := NewWithT(t)
	g.Expect(unsafe.Sizeof(attributes{})).To(BeEquivalentTo(28))
	g.Expect(unsafe.Sizeof(diskQuota{})).To(BeEquivalentTo(112))
	g.Expect(unsafe.Sizeof(quotaState{})).To(BeEquivalentTo(160))
}

func TestIdsAreTakenInTurn(t *testing.T) {
	a := allocator{ids: Range{First: 5, Last: 7}}
	var got []uint32
	for range 5 {
		got = append(got, a.candidate())
	}
	NewWithT(t).Expect(got).To(Equal([]uint32{5, 6, 7, 5, 6}))
	a = allocator{ids: Range{First: 5, Last: 5}}
	NewWithT(t).Expect([]uint32{a.candidate(), a.candidate()}).To(Equal([]uint32{5, 5}))
}

func TestNewRefusesRangesWithoutIds(t *testing.T) {
	for _, ids := range []Range{{}, {0, 5}, {6, 5}} {
		_, err := New(t.TempDir(), ids)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("it must begin above 0 and not end before")), "%+v", ids)
	}
}

// A disk may come later than the daemon: until then each use says what is missing.
func TestMissingDirectoryIsNamedByEachUse(t *testing.T) {
	g := NewWithT(t)
	missing := filepath.Join(t.TempDir(), "none")
	d, err := New(missing, DefaultRange())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = d.Capacity(t.Context())
	g.Expect(err).To(MatchError(And(ContainSubstring("open volume root: "), ContainSubstring("mount it again"), ContainSubstring(missing))))
	_, err = d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20})
	g.Expect(err).To(HaveOccurred())
	g.Expect(missing).NotTo(BeADirectory())
}

func TestS9_OtherFileSystemsAreRefused(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	g.Expect(unix.Mount("none", root, "tmpfs", 0, "size=1m")).To(Succeed())
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	d, err := New(root, DefaultRange())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.Name()).To(Equal("quota"))
	_, err = d.Ensure(t.Context(), volume.Spec{ID: "a", Size: 1 << 20})
	g.Expect(err).To(And(MatchError(volume.ErrUnlimited), MatchError(ContainSubstring(root+": it lies on neither XFS nor ext4"))))
	g.Expect(d.List(t.Context())).To(BeEmpty())
	g.Expect(d.Sweep(t.Context())).To(Succeed())
}

package archive

import (
	"encoding/binary"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// dent is an entry of a directory as the kernel lists it.
func dent(name string) []byte {
	b := make([]byte, 19, 19+len(name)+1)
	b = append(append(b, name...), 0)
	binary.NativeEndian.PutUint16(b[16:], uint16(len(b)))
	b[18] = unix.DT_REG
	return b
}

// Some filesystems have names that no backup can hold: they are named.
func TestS3_NamesThatAreTooLongAreNamed(t *testing.T) {
	g := NewWithT(t)
	most, more := strings.Repeat("n", 255), strings.Repeat("ñ", 128)
	var w scanWorker
	g.Expect(w.parse(append(append(dent(most), dent(more)...), dent("last")...))).To(Succeed())
	g.Expect(w.found).To(HaveLen(2))
	g.Expect(string(w.name(w.found[0]))).To(Equal(most))
	g.Expect(string(w.name(w.found[1]))).To(Equal("last"))
	g.Expect(w.long).To(Equal([]problem{{more, errLongName}}))
}

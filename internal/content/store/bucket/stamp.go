package bucket

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Stamp changes when one of the files is written, replaced or removed. It reads no content.
func Stamp(files ...string) string {
	var stamp strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			stamp.WriteString("none;")
			continue
		}
		var inode uint64
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = st.Ino
		}
		_, _ = fmt.Fprintf(&stamp, "%d %d %d;", inode, info.Size(), info.ModTime().UnixNano())
	}
	return stamp.String()
}

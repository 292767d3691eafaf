package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what the times depend on.
type machine struct {
	processor string
	cores     int
	memory    int64 // bytes
	kernel    string
}

func thisMachine() machine {
	m := machine{processor: "unknown processor", cores: runtime.NumCPU(), kernel: "unknown"}
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		m.processor = name
	}
	m.memory = kilobytes("MemTotal")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

// enoughMemory keeps a run from driving the machine out of memory.
func enoughMemory(o options) error {
	need := int64(memoryForTree)
	if o.million {
		need = memoryForMillion
	}
	if free := kilobytes("MemAvailable"); free < need {
		return fmt.Errorf("trees and stores lie in memory, of which %d MB are free but up to %d MB are needed: end other programs, or leave out "+
			"the small files with -million=false", free>>20, need>>20)
	}
	return nil
}

// kilobytes returns a value of /proc/meminfo, in bytes.
func kilobytes(name string) (n int64) {
	_, _ = fmt.Sscanf(field("/proc/meminfo", name), "%d kB", &n)
	return n << 10
}

// field returns the first value of that name in a file of names and values, empty if there is none.
func field(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

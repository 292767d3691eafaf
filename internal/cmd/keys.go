package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"wsdaemon.dev/ws-daemon/internal/content/archive/format"
)

const (
	keySuffix  = ".key"
	defaultKey = "_default" + keySuffix // no domain can have that name
	noKey      = "none"
	maxKeyFile = 1 << 20
)

// keyRing is a key file for all domains, or a directory of key files, one for each domain. It is read whenever a key is needed, so
// that a changed file, or a Secret that was mounted as one, takes effect without a restart. "" seals nothing.
type keyRing string

// of returns the keys of a domain; nil if it is not sealed. Without a key file for it that is an error: whoever seals backups
// does not want one in the open because of a missing file.
func (r keyRing) of(domain string) (*format.Key, error) {
	if r == "" {
		return nil, nil
	}
	data, file, err := r.read(domain)
	if err != nil {
		return nil, fmt.Errorf("read the key of domain %s: %w", domain, err)
	}
	key, err := parseKeys(file, data)
	if err != nil || key == nil {
		return nil, err
	}
	return key.For(domain)
}

// read finds the key file of a domain.
func (r keyRing) read(domain string) (data []byte, file string, err error) {
	info, err := os.Stat(string(r))
	if err != nil {
		return nil, "", err
	}
	if !info.IsDir() {
		data, err = readKeyFile(string(r))
		return data, string(r), err
	}
	for _, name := range []string{domain + keySuffix, defaultKey} {
		file = filepath.Join(string(r), name)
		data, err = readKeyFile(file)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, file, err
		}
	}
	return nil, "", fmt.Errorf("there is neither %s%s nor %s in %s: make one, with \"none\" in it if the domain shall not be sealed",
		domain, keySuffix, defaultKey, r)
}

// readKeyFile reads a file that should be small.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("read %s: it is larger than any key file", path)
	}
	return data, nil
}

func parseKeys(file string, data []byte) (*format.Key, error) {
	if string(bytes.TrimSpace(data)) == noKey {
		return nil, nil
	}
	key, err := format.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", file, err)
	}
	return key, nil
}

// check reads every key there is, so that a mistake shows at the start.
func (r keyRing) check() error {
	if r == "" {
		return nil
	}
	files := []string{string(r)}
	if entries, err := os.ReadDir(string(r)); err == nil {
		files = nil
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), keySuffix) {
				files = append(files, filepath.Join(string(r), e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("there are no key files in %s: <domain>%s, or %s for all that have none", r, keySuffix, defaultKey)
	}
	var errs []error
	for _, file := range files {
		data, err := readKeyFile(file)
		if err == nil {
			_, err = parseKeys(file, data)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

package initializer

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wsdaemon.dev/ws-daemon/internal/content/sandbox"
)

// downloadTask fetches in the sandbox, whose working directory is the target.
func downloadTask(ctx context.Context, call *sandbox.Call) (any, error) {
	var order downloadOrder
	if err := call.Decode(&order); err != nil {
		return nil, err
	}
	place, err := openPlace(".", order.MaxBytes, order.MaxFiles)
	if err != nil {
		return nil, err
	}
	defer place.close()
	place.tell = func(m made) { call.Report(m) }
	source := newSource(ctx, order)
	defer source.close()
	d := &download{spec: order.Spec, place: place, source: source, hash: hasher(order.Spec.Digest)}
	if order.Spec.Unpack {
		err = d.unpack()
	} else {
		err = d.save()
	}
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return nil, d.explain(err)
	}
	return place.made, nil
}

// download is one file on its way.
type download struct {
	spec   DownloadSpec
	place  *place
	source *source
	hash   hash.Hash
}

func hasher(digest string) hash.Hash {
	if strings.HasPrefix(digest, "sha512:") {
		return sha512.New()
	}
	return sha256.New()
}

// stream is the file as it comes; all that is read of it is hashed.
func (d *download) stream() io.Reader { return io.TeeReader(d.source, d.hash) }

// save puts the file down as it is.
func (d *download) save() error {
	dir, name := path.Split(d.spec.Path)
	if err := d.place.makeParents(strings.TrimSuffix(dir, "/")); err != nil {
		return err
	}
	return d.place.file(dir+name, 0o644, time.Time{}, d.stream())
}

// unpack takes the archive apart while it comes. Its end is read as well, for the digest.
func (d *download) unpack() error {
	if err := d.place.descend(d.spec.Path); err != nil {
		return err
	}
	stream := d.stream()
	if err := unpack(d.place, stream); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, stream)
	return err
}

// check compares the digest of all that came with the one that was asked for.
func (d *download) check() error {
	if d.spec.Digest == "" {
		return nil
	}
	kind, want, _ := strings.Cut(d.spec.Digest, ":")
	if got := hex.EncodeToString(d.hash.Sum(nil)); got != want {
		return newError(Invalid, nil, "download %s has the digest %s:%s, not %s: correct the digest, or the file on the server",
			d.spec.URL, kind, got, d.spec.Digest)
	}
	return nil
}

// explain gives errors of the file system a kind.
func (d *download) explain(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return newError(Full, err, "download %s: the volume is full: enlarge spec.volume.size", d.spec.URL)
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return newError(Failed, err, "download %s: %v", d.spec.URL, err)
	}
	return newError(Invalid, err, "download %s: %v", d.spec.URL, err)
}

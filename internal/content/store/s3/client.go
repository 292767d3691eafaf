package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

const (
	checksumHeader = "x-amz-checksum-crc32c"
	// pageSize is the most that a server lists in one reply.
	pageSize = 1000
)

// client makes the requests of [bucket.Client].
type client struct {
	core   minio.Core
	creds  *credentials.Credentials
	bucket string
	region string
	secure bool
	// md5 says that the server once confirmed no CRC32C: it is sent a checksum then that every server compares.
	md5 atomic.Bool
}

func (c *client) Create(ctx context.Context, key string, data []byte) error {
	sum := checksum(data)
	o := minio.PutObjectOptions{
		DisableMultipart: true, DisableContentSha256: true, ContentType: "application/octet-stream",
		UserMetadata: map[string]string{checksumHeader: sum},
	}
	o.SetMatchETagExcept("*")
	var md5sum, sha string
	if c.md5.Load() {
		md5sum = contentMD5(data)
	}
	if !c.secure {
		// Without TLS the signature has to cover the content.
		digest := sha256.Sum256(data)
		sha = hex.EncodeToString(digest[:])
	}
	return c.do(ctx, func(ctx context.Context) error {
		info, err := c.core.PutObject(ctx, c.bucket, key, bytes.NewReader(data), int64(len(data)), md5sum, sha, o)
		if err != nil {
			return err
		}
		c.md5.Store(info.ChecksumCRC32C == "")
		if info.ChecksumCRC32C != "" && info.ChecksumCRC32C != sum {
			return bucket.Corrupt(info.ChecksumCRC32C, sum)
		}
		return nil
	})
}

func checksum(data []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

func (c *client) Fetch(ctx context.Context, key string, limit int64) (data []byte, err error) {
	var o minio.GetObjectOptions
	o.Set("x-amz-checksum-mode", "ENABLED")
	err = c.get(ctx, key, o, func(body io.Reader, info minio.ObjectInfo, header http.Header) error {
		if err := bucket.CheckSize(info.Size, limit); err != nil {
			return err
		}
		data = make([]byte, info.Size)
		if err := bucket.Fill(body, data); err != nil {
			return err
		}
		// Of an object that was written in parts the checksum is one of checksums, and has a dash.
		if sum := header.Get(checksumHeader); sum != "" && !strings.Contains(sum, "-") && sum != checksum(data) {
			return bucket.ErrChecksum
		}
		return nil
	})
	return data, err
}

func (c *client) FetchRange(ctx context.Context, key string, offset int64, buf []byte) error {
	var o minio.GetObjectOptions
	end := offset + int64(len(buf)) - 1
	if err := o.SetRange(offset, end); err != nil {
		return bucket.TooShort(0, offset, len(buf))
	}
	return c.get(ctx, key, o, func(body io.Reader, _ minio.ObjectInfo, header http.Header) error {
		if err := bucket.CheckRange(header.Get("Content-Range"), offset, len(buf)); err != nil {
			return err
		}
		return bucket.Fill(body, buf)
	})
}

// get reads the reply to a GET while its request is under way.
func (c *client) get(ctx context.Context, key string, o minio.GetObjectOptions, read func(io.Reader, minio.ObjectInfo, http.Header) error) error {
	return c.do(ctx, func(ctx context.Context) error {
		body, info, header, err := c.core.GetObject(ctx, c.bucket, key, o)
		if err != nil {
			return err
		}
		defer body.Close()
		if err := bucket.CheckEncoding(header); err != nil {
			return err
		}
		return read(body, info, header)
	})
}

func (c *client) Head(ctx context.Context, key string) (o store.Object, err error) {
	err = c.do(ctx, func(ctx context.Context) error {
		info, err := c.core.StatObject(ctx, c.bucket, key, minio.StatObjectOptions{})
		if err != nil {
			return err
		}
		o = describe(info)
		return bucket.CheckSize(info.Size, math.MaxInt64)
	})
	return o, err
}

// describe cuts times to seconds: a listing has smaller parts on some servers, a reply of its own never.
func describe(info minio.ObjectInfo) store.Object {
	return store.Object{Key: info.Key, Size: info.Size, Modified: info.LastModified.UTC().Truncate(time.Second)}
}

func (c *client) Page(ctx context.Context, prefix, after string, limit int) (objects []store.Object, more bool, err error) {
	if limit <= 0 || limit > pageSize {
		limit = pageSize
	}
	owner := false
	o := minio.ListObjectsOptions{Prefix: prefix, StartAfter: after, MaxKeys: limit, Recursive: true, FetchOwner: &owner}
	err = c.do(ctx, func(ctx context.Context) error {
		objects = nil
		for info := range c.core.ListObjectsIter(ctx, c.bucket, o) {
			if info.Err != nil {
				return info.Err
			}
			if objects = append(objects, describe(info)); len(objects) == limit {
				break
			}
		}
		return ctx.Err() // the iterator only ends then
	})
	return objects, len(objects) == limit, err
}

func (c *client) Remove(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		batch := keys[:min(len(keys), pageSize)]
		if err := c.do(ctx, func(ctx context.Context) error { return c.remove(ctx, batch) }); err != nil {
			return err
		}
		keys = keys[len(batch):]
	}
	return nil
}

func (c *client) remove(ctx context.Context, keys []string) error {
	if len(keys) == 1 {
		return c.core.RemoveObject(ctx, c.bucket, keys[0], minio.RemoveObjectOptions{})
	}
	objects := make(chan minio.ObjectInfo, len(keys))
	for _, key := range keys {
		objects <- minio.ObjectInfo{Key: key}
	}
	close(objects)
	var failed error
	for e := range c.core.RemoveObjects(ctx, c.bucket, objects, minio.RemoveObjectsOptions{}) {
		if failed == nil {
			failed = fmt.Errorf("delete %s: %w", e.ObjectName, e.Err)
		}
	}
	return errors.Join(failed, ctx.Err())
}

package gcs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/api/googleapi"
	storage "google.golang.org/api/storage/v1"

	"wsdaemon.dev/ws-daemon/internal/content/store"
	"wsdaemon.dev/ws-daemon/internal/content/store/bucket"
)

const (
	// pageSize is the most that is listed in one reply.
	pageSize = 1000
	// deletesAtOnce stands in for a request that deletes many objects, which there is none.
	deletesAtOnce = 16
)

// client makes the requests of [bucket.Client].
type client struct {
	objects *storage.ObjectsService
	bucket  string
}

func (c *client) Create(ctx context.Context, key string, data []byte) error {
	sum := checksum(data)
	return c.ofBucket(c.do(ctx, func(ctx context.Context) error {
		// The name is no part of the body, where a flipped bit would make an object of another name.
		call := c.objects.Insert(c.bucket, &storage.Object{Crc32c: sum, ContentType: "application/octet-stream"}).Name(key)
		call = call.IfGenerationMatch(0).Fields("name", "crc32c")
		// Chunks of no size are one request, which nobody but us repeats.
		o, err := call.Media(bytes.NewReader(data), googleapi.ChunkSize(0), googleapi.ContentType("application/octet-stream")).Context(ctx).Do()
		if err != nil {
			return err
		}
		if o.Name != key {
			return fmt.Errorf("the store understood the name %q: the request was changed on its way", o.Name)
		}
		if o.Crc32c != sum {
			return bucket.Corrupt(o.Crc32c, sum)
		}
		return nil
	}))
}

func checksum(data []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

func (c *client) Fetch(ctx context.Context, key string, limit int64) (data []byte, err error) {
	err = c.get(ctx, key, "", func(resp *http.Response) error {
		if err := bucket.CheckSize(resp.ContentLength, limit); err != nil {
			return err
		}
		data = make([]byte, resp.ContentLength)
		if err := bucket.Fill(resp.Body, data); err != nil {
			return err
		}
		if sentChecksum(resp.Header) != checksum(data) {
			return bucket.ErrChecksum
		}
		return nil
	})
	return data, err
}

// sentChecksum returns the CRC32C of an object among the hashes of a reply.
func sentChecksum(header http.Header) string {
	for hash := range strings.SplitSeq(strings.Join(header.Values("X-Goog-Hash"), ","), ",") {
		if sum, ok := strings.CutPrefix(strings.TrimSpace(hash), "crc32c="); ok {
			return sum
		}
	}
	return ""
}

func (c *client) FetchRange(ctx context.Context, key string, offset int64, buf []byte) error {
	end := offset + int64(len(buf)) - 1
	if end < offset {
		return bucket.TooShort(0, offset, len(buf))
	}
	return c.get(ctx, key, fmt.Sprintf("bytes=%d-%d", offset, end), func(resp *http.Response) error {
		if err := bucket.CheckRange(resp.Header.Get("Content-Range"), offset, len(buf)); err != nil {
			return err
		}
		return bucket.Fill(resp.Body, buf)
	})
}

// get reads the reply to a GET while its request is under way.
func (c *client) get(ctx context.Context, key, span string, read func(*http.Response) error) error {
	return c.do(ctx, func(ctx context.Context) error {
		call := c.objects.Get(c.bucket, key).Context(ctx)
		if span != "" {
			call.Header().Set("Range", span)
		}
		resp, err := call.Download()
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := bucket.CheckEncoding(resp.Header); err != nil {
			return err
		}
		return read(resp)
	})
}

func (c *client) Head(ctx context.Context, key string) (o store.Object, err error) {
	err = c.do(ctx, func(ctx context.Context) error {
		found, err := c.objects.Get(c.bucket, key).Fields("name", "size", "timeCreated").Context(ctx).Do()
		if err != nil {
			return err
		}
		o, err = describe(found)
		return err
	})
	return o, err
}

func describe(o *storage.Object) (store.Object, error) {
	created, err := time.Parse(time.RFC3339, o.TimeCreated)
	if err != nil {
		return store.Object{}, fmt.Errorf("the store says that %s was made at %q, which is no time", o.Name, o.TimeCreated)
	}
	return store.Object{Key: o.Name, Size: int64(o.Size), Modified: created.UTC()}, nil
}

func (c *client) Page(ctx context.Context, prefix, after string, limit int) (objects []store.Object, more bool, err error) {
	if limit <= 0 || limit > pageSize {
		limit = pageSize
	}
	token := ""
	err = c.do(ctx, func(ctx context.Context) error {
		// A page may be empty although there are more.
		for objects, more = nil, true; more && len(objects) == 0; more = token != "" {
			// What an offset names would be listed as well. No character of a key is smaller than a space.
			call := c.objects.List(c.bucket).Prefix(prefix).StartOffset(after + " ").MaxResults(int64(limit)).PageToken(token)
			page, err := call.Fields("kind", "items(name,size,timeCreated)", "nextPageToken").Context(ctx).Do()
			if err == nil && page.Kind != "storage#objects" {
				err = bucket.ErrForeign // an error, maybe, that came with status 200
			}
			if err != nil {
				return err
			}
			if objects, err = collect(page.Items, after); err != nil {
				return err
			}
			token = page.NextPageToken
		}
		return nil
	})
	return objects, more, c.ofBucket(err)
}

func collect(items []*storage.Object, after string) ([]store.Object, error) {
	objects := make([]store.Object, 0, len(items))
	for _, item := range items {
		o, err := describe(item)
		if err != nil {
			return nil, err
		}
		if o.Key > after {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

func (c *client) Remove(ctx context.Context, keys []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deletesAtOnce)
	for _, key := range keys {
		group.Go(func() error {
			err := c.do(ctx, func(ctx context.Context) error { return c.objects.Delete(c.bucket, key).Context(ctx).Do() })
			err = bucket.Unlisted(ctx, c, key, err)
			if err == nil || errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return fmt.Errorf("delete %s: %w", key, err)
		})
	}
	return group.Wait()
}

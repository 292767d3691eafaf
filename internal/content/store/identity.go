package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
)

// IdentityKey is the key of the object that makes a place a store. Its absence tells an unmounted directory from an
// empty store.
const IdentityKey = "store.json"

const (
	identityFormat  = 1
	maxIdentitySize = 64 << 10
)

type identity struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
}

// Init makes a store of an existing place and returns its id. It changes nothing where there is a store already.
func Init(ctx context.Context, s Store) (string, error) {
	data, err := json.Marshal(identity{Format: identityFormat, ID: newID()})
	if err != nil {
		return "", fmt.Errorf("initialize store %s: %w", s, err)
	}
	err = s.Put(ctx, IdentityKey, AppendSum(data))
	if err != nil && !errors.Is(err, ErrExists) {
		return "", fmt.Errorf("initialize store %s: %w", s, err)
	}
	return Identity(ctx, s)
}

// Identity returns the id that [Init] gave the store, or [ErrNotInitialized] with a text that says what to do.
func Identity(ctx context.Context, s Store) (string, error) {
	data, err := s.Get(ctx, IdentityKey, maxIdentitySize)
	switch {
	case errors.Is(err, ErrNotFound):
		return "", NotInitialized(s.String())
	case errors.Is(err, ErrTooLarge):
		return "", fmt.Errorf("identify store %s: %s is damaged: %w", s, IdentityKey, err)
	case err != nil:
		return "", fmt.Errorf("identify store %s: %w", s, err)
	}
	return parseIdentity(s, data)
}

// CheckIdentity says whether bytes are what [Init] writes, whatever its version, and no page of something that answers for a store.
func CheckIdentity(data []byte) error {
	_, err := decodeIdentity(data)
	return err
}

func decodeIdentity(data []byte) (i identity, err error) {
	err = errors.Join(CheckSum(data), json.Unmarshal(data, &i))
	return i, err
}

func parseIdentity(s Store, data []byte) (string, error) {
	i, err := decodeIdentity(data)
	if err != nil {
		return "", fmt.Errorf("identify store %s: %s is damaged: %w", s, IdentityKey, err)
	}
	if i.Format > identityFormat {
		return "", fmt.Errorf("identify store %s: %s has format %d, this version knows %d: update ws-daemon",
			s, IdentityKey, i.Format, identityFormat)
	}
	if i.Format < 1 || i.ID == "" {
		return "", fmt.Errorf("identify store %s: %s is damaged: format or id is missing", s, IdentityKey)
	}
	return i.ID, nil
}

// NotInitialized is what a driver answers where it finds no store. The command in it is good to be pasted.
func NotInitialized(url string) error {
	return fmt.Errorf("%w: %s has no %s: mount it, or make a new store with `ws-daemon archive init --store '%s'`",
		ErrNotInitialized, url, IdentityKey, url)
}

// newID returns a random version 4 UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

package format

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	keySize = 32
	tagSize = 16
)

// Key is the secret of a domain, from which the keys of packs and page tables are derived. It never shows when printed.
type Key struct {
	secret     [keySize]byte
	generation uint32
}

// ParseKey reads a key file: 64 hex digits, or "<generation>:" and 64 hex digits. Without one the generation is 1. Blanks
// around it do not count. Errors never quote the key.
func ParseKey(data []byte) (*Key, error) {
	text := strings.TrimSpace(string(data))
	generation, digits, found := strings.Cut(text, ":")
	if !found {
		generation, digits = "1", text
	}
	n, err := strconv.ParseUint(generation, 10, 32)
	if err != nil || n == 0 {
		return nil, errors.New("parse key: the generation before ':' must be a number from 1 to 4294967295")
	}
	secret, err := hex.DecodeString(digits)
	if err != nil || len(secret) != keySize {
		return nil, errors.New("parse key: it must be 64 hex digits, as `openssl rand -hex 32` prints them")
	}
	k := &Key{generation: uint32(n)}
	copy(k.secret[:], secret)
	if k.secret == [keySize]byte{} {
		return nil, errors.New("parse key: it is all zeros: make one with `openssl rand -hex 32`")
	}
	return k, nil
}

// Generation tells keys of a domain apart. It is at least 1.
func (k Key) Generation() uint32 { return k.generation }

// String names the key without showing it.
func (k Key) String() string {
	return "key of generation " + strconv.FormatUint(uint64(k.generation), 10)
}

// Format writes [Key.String] for every verb, so that no way of printing shows the secret.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// derive returns the cipher for one purpose and salt.
func (k *Key) derive(purpose string, salt []byte) (cipher.AEAD, error) {
	secret, err := k.subkey(purpose, salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("derive %s key: %w", purpose, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive %s key: %w", purpose, err)
	}
	return aead, nil
}

func (k *Key) subkey(purpose string, salt []byte) ([]byte, error) {
	info := fmt.Sprintf("ws-daemon %s v1 key %d", purpose, k.generation)
	secret, err := hkdf.Key(sha256.New, k.secret[:], salt, info, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive %s key: %w", purpose, err)
	}
	return secret, nil
}

// synthesize returns a salt that is a function of the content, secret to whoever has no key. So equal tables have equal
// bytes, and no two tables share a key and nonce.
func (k *Key) synthesize(parts ...[]byte) ([]byte, error) {
	secret, err := k.subkey("salt", nil)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, secret)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil), nil
}

// wants checks that the key is the one of that generation.
func (k *Key) wants(what string, generation uint32) error {
	if k == nil {
		return fmt.Errorf("%s: it is encrypted with key generation %d, and no key is given: %w", what, generation, ErrKey)
	}
	if k.generation != generation {
		return fmt.Errorf("%s: it is encrypted with key generation %d, the key given has %d: %w", what, generation, k.generation, ErrKey)
	}
	return nil
}

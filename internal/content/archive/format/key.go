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

// Key is a key ring: a secret, from which the keys of packs and page tables are derived, and those that were in use before it. The
// first seals, each opens what has its generation. It never shows when printed.
type Key struct {
	secret     [keySize]byte
	generation uint32
	older      []*Key
}

// ParseKey reads a key file: a line for each key, of which the first seals and the others only open. A line has 64 hex digits, or
// "<generation>:" and 64 hex digits. Without one the generation is 1. Empty lines, lines that begin with '#', and blanks around a
// key do not count. Errors never quote a key.
func ParseKey(data []byte) (*Key, error) {
	var ring *Key
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKey(line)
		switch {
		case err != nil:
			return nil, err
		case ring == nil:
			ring = k
		case ring.find(k.generation) != nil:
			return nil, fmt.Errorf("parse key: there are two of generation %d: give each line a generation of its own, \"2:\" and so on", k.generation)
		default:
			ring.older = append(ring.older, k)
		}
	}
	if ring == nil {
		return parseKey("")
	}
	return ring, nil
}

func parseKey(text string) (*Key, error) {
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

// For returns the key ring of one domain. No other domain's opens what it seals, although all may come from one file.
func (k *Key) For(domain string) (*Key, error) {
	secret, err := hkdf.Key(sha256.New, k.secret[:], nil, "ws-daemon domain v1 "+domain, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of domain %s: %w", domain, err)
	}
	own := &Key{generation: k.generation}
	copy(own.secret[:], secret)
	for _, old := range k.older {
		key, err := old.For(domain)
		if err != nil {
			return nil, err
		}
		own.older = append(own.older, key)
	}
	return own, nil
}

// Generation is that of the key that seals. It is at least 1.
func (k Key) Generation() uint32 { return k.generation }

// Check tells whether two keys of one generation are the same, and nothing about the key: 64 hex digits.
func (k *Key) Check() (string, error) {
	sum, err := k.subkey("check", nil)
	return hex.EncodeToString(sum), err
}

func (k *Key) find(generation uint32) *Key {
	if k == nil || k.generation == generation {
		return k
	}
	for _, old := range k.older {
		if old.generation == generation {
			return old
		}
	}
	return nil
}

// String names the generations without showing a key.
func (k Key) String() string {
	text := strconv.AppendUint([]byte("key of generation "), uint64(k.generation), 10)
	for _, old := range k.older {
		text = strconv.AppendUint(append(text, ", "...), uint64(old.generation), 10)
	}
	return string(text)
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

// of returns the key of a generation, or says why there is none.
func (k *Key) of(what string, generation uint32) (*Key, error) {
	if k == nil {
		return nil, fmt.Errorf("%s: it is sealed with key generation %d, and no key is given: %w", what, generation, ErrKey)
	}
	key := k.find(generation)
	if key == nil {
		return nil, fmt.Errorf("%s: it is sealed with key generation %d, and there is only the %v: add that generation to the key file: %w",
			what, generation, k, ErrKey)
	}
	return key, nil
}

// refused says that a key of the right generation does not open what has the checksum that it should. That matches [ErrDamaged],
// too: nobody can tell another key from bytes that somebody else made.
func (k *Key) refused(what string) error {
	return fmt.Errorf("%s: it does not open with the key of generation %d: another domain's, or another one of that generation, sealed it: %w, or %w",
		what, k.generation, ErrKey, ErrDamaged)
}

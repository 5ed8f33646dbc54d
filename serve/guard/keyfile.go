package guard

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"autodev/internal/atomicfile"
)

// keyPrefix marks a key as ours, for people and for programs that look for secrets in places where none belong.
const keyPrefix = "autodev_"

var keyText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// keyName keeps names printable: they stand in logs.
var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Limits bound what a key may use; 0 is no bound.
type Limits struct {
	RequestsPerMinute int   `json:"requests_per_minute,omitempty"`
	TokensPerDay      int64 `json:"tokens_per_day,omitempty"` // of prompts, as far as they were evaluated, and of answers; the day is UTC's
	Concurrent        int   `json:"concurrent,omitempty"`
}

func (l Limits) check() error {
	if l.RequestsPerMinute < 0 || l.TokensPerDay < 0 || l.Concurrent < 0 {
		return fmt.Errorf("limits: found %d requests per minute, %d tokens per day, %d at once, expected 0 (no limit) or more", l.RequestsPerMinute, l.TokensPerDay, l.Concurrent)
	}
	return nil
}

// Key is an API key as it is stored: everything but the key.
type Key struct {
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"` // of the whole key, in hexadecimal
	Created time.Time `json:"created"`
	Admin   bool      `json:"admin,omitempty"` // it may exchange models and adapters
	Limits  Limits    `json:"limits,omitzero"`

	hash [sha256.Size]byte
}

// keyFile is the file's content.
type keyFile struct {
	Version int   `json:"version"`
	Keys    []Key `json:"keys"`
}

const (
	keyFileVersion  = 1
	maxKeyFileBytes = 16 << 20
)

// ReadKeys reads a file of keys. A file that others than its owner may write is refused.
func ReadKeys(path string) ([]Key, error) {
	keys, _, err := readKeys(path)
	return keys, err
}

// readKeys also returns what tells this version of the file from others.
func readKeys(path string) ([]Key, fs.FileInfo, error) {
	content, info, err := readOwn(path)
	if err != nil {
		return nil, nil, fmt.Errorf("API keys: %w", err)
	}
	keys, err := parseKeys(content)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, info, nil
}

// readOwn reads a file that only its owner may write.
func readOwn(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, nil, fmt.Errorf("%s: has mode %04o, expected one that lets only its owner write, such as 0600", path, info.Mode().Perm())
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err == nil && len(content) > maxKeyFileBytes {
		err = fmt.Errorf("%s: longer than %d bytes", path, maxKeyFileBytes)
	}
	return content, info, err
}

// createOwn makes a file that only its owner may read. Atomic replacement keeps the mode of what it replaces.
func createOwn(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

// decodeStrictly reads one JSON object of known fields and nothing more.
func decodeStrictly(content []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("found more after the file's object")
	}
	return nil
}

func parseKeys(content []byte) ([]Key, error) {
	var f keyFile
	if err := decodeStrictly(content, &f); err != nil {
		return nil, fmt.Errorf("expected a file of keys as autodev keys writes it: %w", err)
	}
	if f.Version != keyFileVersion {
		return nil, fmt.Errorf("version: found %d, expected %d", f.Version, keyFileVersion)
	}
	names := map[string]bool{}
	for i := range f.Keys {
		k := &f.Keys[i]
		if !keyName.MatchString(k.Name) {
			return nil, fmt.Errorf("keys[%d]: name: found %.70q, expected 1 to 64 letters, digits, dots, dashes, underscores and @", i, k.Name)
		}
		if names[k.Name] {
			return nil, fmt.Errorf("keys[%d]: name: %s is there twice", i, k.Name)
		}
		names[k.Name] = true
		var err error
		if k.hash, err = parseHash(k.SHA256); err != nil {
			return nil, fmt.Errorf("keys[%d]: sha256: %w", i, err)
		}
		if err := k.Limits.check(); err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	return f.Keys, nil
}

func parseHash(s string) (hash [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size {
		return hash, fmt.Errorf("found %.70q, expected %d hexadecimal digits", s, 2*sha256.Size)
	}
	return [sha256.Size]byte(b), nil
}

// Check reports whether k's name and limits are ones that a key may have.
func (k Key) Check() error {
	if !keyName.MatchString(k.Name) {
		return fmt.Errorf("name: found %.70q, expected 1 to 64 letters, digits, dots, dashes, underscores and @", k.Name)
	}
	return k.Limits.check()
}

// AddKey makes a key, stores its hash with what k says of it in the file at path, which need not exist, and returns the key. Nothing
// keeps the key itself.
func AddKey(path string, k Key) (string, error) {
	if err := k.Check(); err != nil {
		return "", err
	}
	var random [20]byte
	rand.Read(random[:]) // never fails
	secret := keyPrefix + keyText.EncodeToString(random[:])
	return secret, changeKeys(path, true, func(keys []Key) ([]Key, error) {
		if slices.ContainsFunc(keys, func(old Key) bool { return old.Name == k.Name }) {
			return nil, fmt.Errorf("%s: already has a key named %s", path, k.Name)
		}
		hash := sha256.Sum256([]byte(secret))
		k.SHA256, k.Created = hex.EncodeToString(hash[:]), k.Created.UTC().Truncate(time.Second)
		return append(keys, k), nil
	})
}

// RevokeKey removes the key of that name from the file at path.
func RevokeKey(path, name string) error {
	return changeKeys(path, false, func(keys []Key) ([]Key, error) {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%s: has no key named %q", path, name)
		}
		return slices.Delete(keys, i, i+1), nil
	})
}

// changeKeys replaces the file as a whole. Two changes at the same moment must not lose one of them: the second finds the lock.
func changeKeys(path string, create bool, change func([]Key) ([]Key, error)) (err error) {
	lock := path + ".lock"
	l, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: exists: the keys are being changed by another command; remove it if there is none", lock)
	}
	if err != nil {
		return fmt.Errorf("API keys: %w", err)
	}
	defer func() { err = errors.Join(err, l.Close(), os.Remove(lock)) }()
	keys, err := ReadKeys(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		err = createOwn(path, emptyKeys)
	}
	if err != nil {
		return err
	}
	if keys, err = change(keys); err != nil {
		return err
	}
	if keys == nil {
		keys = []Key{}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(keyFile{keyFileVersion, keys}); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, []byte(b.String()))
}

const emptyKeys = `{"version":1,"keys":[]}` + "\n"

package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often a file is looked at for changes, at most.
const lookEvery = time.Second

// Keys are the API keys of a running server. They follow their file: a key that is revoked is refused within a second or so. What
// a key has used of a day is kept over a restart by a Usage; the rest begins anew.
type Keys struct {
	path   string
	logger *slog.Logger
	now    func() time.Time

	mu       sync.Mutex
	keys     []Key
	accounts map[string]*Account // by name
	seen     fs.FileInfo
	looked   time.Time
	failure  string // of the last attempt to read the file
}

// OpenKeys reads the keys of the file at path. A later version of it that cannot be read changes nothing and is logged; logger may
// be nil.
func OpenKeys(path string, logger *slog.Logger) (*Keys, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	k := &Keys{path: path, logger: logger, now: time.Now, accounts: map[string]*Account{}}
	keys, info, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	k.take(keys, info)
	return k, nil
}

// Len returns the number of keys.
func (k *Keys) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.keys)
}

// take makes keys the ones that count. The accounts of those that stay keep what they have used.
func (k *Keys) take(keys []Key, info fs.FileInfo) {
	accounts := make(map[string]*Account, len(keys))
	for _, key := range keys {
		a := k.accounts[key.Name]
		if a == nil || a.hash != key.hash {
			a = &Account{Name: key.Name, hash: key.hash, now: k.now}
		}
		a.set(key)
		accounts[key.Name] = a
	}
	k.keys, k.accounts, k.seen, k.looked = keys, accounts, info, k.now()
}

// Find returns the account of a key, or nil when there is no such key. It takes as long for one as for the other.
func (k *Keys) Find(secret string) *Account {
	hash := sha256.Sum256([]byte(secret))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.look()
	found := -1
	for i := range k.keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], k.keys[i].hash[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return k.accounts[k.keys[found].Name]
}

// Reload reads the file now.
func (k *Keys) Reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.read()
}

// look reads the file again when it has changed.
func (k *Keys) look() {
	if now := k.now(); now.Sub(k.looked) >= lookEvery {
		k.looked = now
		info, err := os.Stat(k.path)
		if err == nil && os.SameFile(info, k.seen) && info.ModTime().Equal(k.seen.ModTime()) && info.Size() == k.seen.Size() {
			k.failure = ""
			return
		}
		_ = k.read() // logged there
	}
}

func (k *Keys) read() error {
	keys, info, err := readKeys(k.path)
	if err != nil {
		if message := err.Error(); message != k.failure { // once, not with every request
			k.failure = message
			k.logger.Error("API keys: the file cannot be read; the keys read before stay in force", "error", message)
		}
		return err
	}
	k.failure = ""
	k.take(keys, info)
	k.logger.Info("API keys read again", "keys", len(keys))
	return nil
}

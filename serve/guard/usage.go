package guard

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"autodev/internal/atomicfile"
)

// Usage keeps in a file what keys have used of the tokens that they may use in a day, so that a restart does not forget it. The file is replaced every
// few seconds when something has changed, away from any request, and when the Usage is closed: a server that is killed forgets the last seconds. It
// is one server's. Where no key has such a limit there is no file.
type Usage struct {
	keys *Keys
	path string

	mu      sync.Mutex
	written []byte
	failure string // of the last attempt to write
	stop    chan struct{}
	done    chan struct{}
}

// usageFile is the file's content.
type usageFile struct {
	Version int       `json:"version"`
	Day     string    `json:"day"` // UTC
	Keys    []keyUsed `json:"keys"`
}

// keyUsed is what a key has used. Name is for people; a new key of the same name is another.
type keyUsed struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Tokens int64  `json:"tokens"`
}

const (
	usageVersion = 1
	// saveEvery is how much of what was used may be forgotten.
	saveEvery = 5 * time.Second
)

// OpenUsage gives keys what they have used today by the file at path, which need not exist, and keeps it there until Close. A file that is none of
// these, or that cannot be written although a key has a limit, is an error.
func OpenUsage(path string, keys *Keys) (*Usage, error) {
	u := &Usage{keys: keys, path: path, stop: make(chan struct{}), done: make(chan struct{})}
	switch content, _, err := readOwn(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("usage of API keys: %w", err)
	case len(content) > 0: // a file just made is empty for a moment
		f, err := parseUsage(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		u.written = content
		keys.restore(f)
	}
	if err := u.save(); err != nil {
		return nil, err
	}
	go u.run()
	return u, nil
}

func parseUsage(content []byte) (usageFile, error) {
	var f usageFile
	if err := decodeStrictly(content, &f); err != nil {
		return f, fmt.Errorf("expected what autodev serve keeps of the tokens that keys have used: %w", err)
	}
	if f.Version != usageVersion {
		return f, fmt.Errorf("version: found %d, expected %d", f.Version, usageVersion)
	}
	if _, err := time.Parse(time.DateOnly, f.Day); err != nil {
		return f, fmt.Errorf("day: found %.20q, expected a date such as 2026-01-31", f.Day)
	}
	for i, k := range f.Keys {
		if _, err := parseHash(k.SHA256); err != nil {
			return f, fmt.Errorf("keys[%d]: sha256: %w", i, err)
		}
		if k.Tokens < 0 {
			return f, fmt.Errorf("keys[%d]: tokens: found %d, expected 0 or more", i, k.Tokens)
		}
	}
	return f, nil
}

// run saves from time to time.
func (u *Usage) run() {
	defer close(u.done)
	for {
		select {
		case <-u.stop:
			return
		case <-time.After(saveEvery):
			_ = u.save() // logged there
		}
	}
}

// Close saves what was used and ends the keeping.
func (u *Usage) Close() error {
	close(u.stop)
	<-u.done
	return u.save()
}

// save writes the file if it would differ.
func (u *Usage) save() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	f, limited := u.keys.used()
	if !limited {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	err := e.Encode(f)
	if err == nil && bytes.Equal(b.Bytes(), u.written) {
		return nil
	}
	if err == nil {
		if err = createOwn(u.path, ""); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err == nil {
		err = atomicfile.WriteFile(u.path, b.Bytes())
	}
	if err != nil {
		err = fmt.Errorf("usage of API keys: %w", err)
		if message := err.Error(); message != u.failure { // once, not every few seconds
			u.failure = message
			u.keys.logger.Error("what API keys have used cannot be kept: a restart would forget it", "error", message)
		}
		return err
	}
	u.written, u.failure = b.Bytes(), ""
	return nil
}

// used returns what the keys have used today, and whether one of them has a limit. Keys that have used nothing are left out.
func (k *Keys) used() (f usageFile, limited bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	day := k.now().Unix() / secondsPerDay
	f = usageFile{Version: usageVersion, Day: time.Unix(day*secondsPerDay, 0).UTC().Format(time.DateOnly), Keys: []keyUsed{}}
	for _, a := range k.accounts {
		a.mu.Lock()
		limited = limited || a.limits.TokensPerDay > 0
		if a.day == day && a.tokens > 0 {
			f.Keys = append(f.Keys, keyUsed{a.Name, hex.EncodeToString(a.hash[:]), a.tokens})
		}
		a.mu.Unlock()
	}
	slices.SortFunc(f.Keys, func(a, b keyUsed) int { return strings.Compare(a.Name, b.Name) })
	return f, limited
}

// restore gives the accounts what f says, if it is of today.
func (k *Keys) restore(f usageFile) {
	k.mu.Lock()
	defer k.mu.Unlock()
	day := k.now().Unix() / secondsPerDay
	if f.Day != time.Unix(day*secondsPerDay, 0).UTC().Format(time.DateOnly) {
		return
	}
	for _, was := range f.Keys {
		for _, a := range k.accounts {
			if hex.EncodeToString(a.hash[:]) == strings.ToLower(was.SHA256) {
				a.mu.Lock()
				a.day, a.tokens = day, was.Tokens
				a.mu.Unlock()
			}
		}
	}
}

package guard

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

// Account is what a key has used of what it may.
type Account struct {
	Name string
	hash [sha256.Size]byte
	now  func() time.Time

	mu      sync.Mutex
	limits  Limits
	admin   bool
	bucket  float64 // requests that may come at once
	filled  time.Time
	day     int64 // days since 1970 that tokens are of
	tokens  int64
	running int
}

// LimitError says that a key has used what it may for now.
type LimitError struct {
	Reason     string
	RetryAfter time.Duration
}

func (e *LimitError) Error() string { return e.Reason }

// Admin reports whether the key may exchange models and adapters.
func (a *Account) Admin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.admin
}

// set takes what the file says of the key.
func (a *Account) set(k Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := k.Limits
	if a.limits.RequestsPerMinute != l.RequestsPerMinute || a.filled.IsZero() {
		a.bucket, a.filled = float64(l.RequestsPerMinute), a.now()
	}
	a.limits, a.admin = l, k.Admin
}

const secondsPerDay = 24 * 60 * 60

// Begin counts a request. It must be ended by the function returned.
func (a *Account) Begin() (end func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if day := now.Unix() / secondsPerDay; day != a.day {
		a.day, a.tokens = day, 0
	}
	l := a.limits
	if l.TokensPerDay > 0 && a.tokens >= l.TokensPerDay {
		rest := time.Duration(secondsPerDay-now.Unix()%secondsPerDay) * time.Second
		return nil, &LimitError{fmt.Sprintf("the key %s has used its %d tokens of today", a.Name, l.TokensPerDay), rest}
	}
	if l.Concurrent > 0 && a.running >= l.Concurrent {
		return nil, &LimitError{fmt.Sprintf("the key %s has %d requests under way, and may have %d", a.Name, a.running, l.Concurrent), time.Second}
	}
	if rate := float64(l.RequestsPerMinute) / 60; rate > 0 {
		// A clock that was set back must not take what is there.
		a.bucket = min(float64(l.RequestsPerMinute), a.bucket+max(0, now.Sub(a.filled).Seconds())*rate)
		a.filled = now
		if a.bucket < 1 {
			wait := time.Duration((1 - a.bucket) / rate * float64(time.Second))
			return nil, &LimitError{fmt.Sprintf("the key %s may make %d requests a minute", a.Name, l.RequestsPerMinute), wait}
		}
		a.bucket--
	}
	a.running++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.running--
	}), nil
}

// Spend counts tokens that a request has used. A request that was admitted ends even when it uses more than is left of the day.
func (a *Account) Spend(tokens int) {
	if tokens <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if day := a.now().Unix() / secondsPerDay; day != a.day {
		a.day, a.tokens = day, 0
	}
	a.tokens += int64(tokens)
}

package assist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"autodev/internal/atomicfile"
)

// Budget bounds what a backend is used in a day (UTC): requests and tokens, 0 for no bound. It is counted for the process, and in a file where one is
// named, so that it outlives it; processes that share a file at the same time may each overrun it by what they use together. A request that begins
// under the bound is carried through, so that tokens may be overrun by one answer for each request under way.
type Budget struct {
	requests, tokens int
	file             string
	now              func() time.Time

	mu   sync.Mutex
	used spent
}

// spent is what was used in a day, as the file has it.
type spent struct {
	Day      string `json:"day"`
	Requests int    `json:"requests"`
	Tokens   int    `json:"tokens"`
}

// BudgetError says that nothing is left.
type BudgetError struct {
	What        string // "requests" or "tokens"
	Limit, Used int
	RetryAfter  time.Duration
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("budget: found %d %s used today, expected at most %d a day; it begins anew in %v", e.Used, e.What, e.Limit, e.RetryAfter.Round(time.Minute))
}

// NewBudget returns a budget; file may be "".
func NewBudget(requests, tokens int, file string) (*Budget, error) {
	b := &Budget{requests: requests, tokens: tokens, file: file, now: time.Now}
	if file == "" {
		return b, nil
	}
	_, err := b.load()
	return b, err
}

func (b *Budget) load() (s spent, err error) {
	content, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &s)
	}
	if err != nil {
		return s, fmt.Errorf("budget_file: %s: %w", b.file, err)
	}
	return s, nil
}

// today brings what was used up to date. The lock is held.
func (b *Budget) today() error {
	if b.file != "" {
		s, err := b.load()
		if err != nil {
			return err
		}
		b.used = s
	}
	if day := b.now().UTC().Format(time.DateOnly); b.used.Day != day {
		b.used = spent{Day: day}
	}
	return nil
}

func (b *Budget) save() error {
	if b.file == "" {
		return nil
	}
	content, err := json.Marshal(b.used)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(b.file, append(content, '\n'))
}

// Begin counts a request, or says what is used up. The function returned counts its tokens.
func (b *Budget) Begin() (func(tokens int) error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.today(); err != nil {
		return nil, err
	}
	now := b.now().UTC()
	rest := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
	switch {
	case b.requests > 0 && b.used.Requests >= b.requests:
		return nil, &BudgetError{"requests", b.requests, b.used.Requests, rest}
	case b.tokens > 0 && b.used.Tokens >= b.tokens:
		return nil, &BudgetError{"tokens", b.tokens, b.used.Tokens, rest}
	}
	b.used.Requests++
	if err := b.save(); err != nil {
		return nil, err
	}
	return b.spend, nil
}

func (b *Budget) spend(tokens int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.today(); err != nil {
		return err
	}
	b.used.Tokens += tokens
	return b.save()
}

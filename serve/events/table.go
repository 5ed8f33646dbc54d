package events

import (
	"container/list"
	"sync"
	"unicode/utf8"
)

// Bounds of the table.
const (
	maxCompletions = 10_000
	maxTableBytes  = 32 << 20
	// maxAround is how much text is kept before and after the cursor, in bytes.
	maxAround = 16 << 10
)

// table keeps the latest completions by id.
type table struct {
	mu    sync.Mutex
	byID  map[string]*list.Element // of *Completion
	order *list.List               // oldest first
	bytes int
}

func newTable() *table { return &table{byID: map[string]*list.Element{}, order: list.New()} }

func (c *Completion) size() int {
	n := 200 + len(c.ID) + len(c.Model) + len(c.Adapter) + len(c.Language) + len(c.Path) + len(c.Client) + len(c.Prefix) + len(c.Suffix)
	for _, s := range c.Choices {
		n += len(s)
	}
	return n
}

// put keeps c, and forgets the oldest that there is no more room for.
func (t *table) put(c *Completion) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.byID[c.ID]; old != nil {
		t.remove(old)
	}
	t.byID[c.ID] = t.order.PushBack(c)
	t.bytes += c.size()
	for t.order.Len() > 1 && (t.order.Len() > maxCompletions || t.bytes > maxTableBytes) {
		t.remove(t.order.Front())
	}
}

func (t *table) remove(e *list.Element) {
	c := t.order.Remove(e).(*Completion)
	delete(t.byID, c.ID)
	t.bytes -= c.size()
}

// get returns the completion of an id that is client's, or nil.
func (t *table) get(id, client string) *Completion {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byID[id]; e != nil {
		if c := e.Value.(*Completion); c.Client == client {
			return c
		}
	}
	return nil
}

// tail and head return the last and the first n bytes of s, or a little less, so that no character is cut.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	for i := 0; i < len(s) && i < utf8.UTFMax; i++ {
		if utf8.RuneStart(s[i]) {
			return s[i:]
		}
	}
	return s
}

func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

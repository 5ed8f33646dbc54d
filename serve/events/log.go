package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options of a Log.
type Options struct {
	Dir string // where files are; "": events are counted and not kept
	// Content keeps code of users with suggestions that were taken, for training.
	Content  bool
	MaxBytes int64 // of all files together: 1 GiB; what comes then is dropped
	// MaxClientBytes bounds what one client may add in a day, so that none fills the folder: a 32nd of MaxBytes.
	MaxClientBytes int64
	Logger         *slog.Logger
}

// Log keeps events. It is safe for use by any number of goroutines. A folder is one Log's: two servers need two.
type Log struct {
	o     Options
	now   func() time.Time
	table *table
	// observe gets every event of a known completion; nil: nobody does.
	observe func(Event)

	mu    sync.Mutex
	file  *os.File
	day   string
	at    int64 // bytes of file
	total int64 // bytes of all files
	full  bool
	added map[string]int64 // bytes of the day, by client, since the Log was opened
}

var (
	// ErrUnknown says that the client got no such completion, or not lately.
	ErrUnknown = errors.New("no such completion")
	// ErrFull says that the folder has all that it may hold, at all or of this client today.
	ErrFull = errors.New("the folder of events is full")
)

const (
	defaultMaxBytes = 1 << 30
	clientsShare    = 32
)

// Open returns a Log over a folder, which is made if it does not exist.
func Open(o Options) (*Log, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MaxClientBytes <= 0 {
		o.MaxClientBytes = o.MaxBytes / clientsShare
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{o: o, now: time.Now, table: newTable()}
	if o.Dir == "" {
		return l, nil
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".jsonl") {
			info, err := e.Info()
			if err != nil {
				return nil, fmt.Errorf("events: %w", err)
			}
			l.total += info.Size()
		}
	}
	// What cannot be written is to be found out now, and not with the first event.
	l.mu.Lock()
	defer l.mu.Unlock()
	return l, l.turn(l.now().UTC())
}

// Observe has every event of a known completion given to f. It comes before the first.
func (l *Log) Observe(f func(Event)) { l.observe = f }

// Remember keeps a completion, so that events can name it. Without Options.Content its texts are not kept.
func (l *Log) Remember(c Completion) {
	if !l.o.Content || l.o.Dir == "" {
		c.Prefix, c.Suffix, c.Path, c.Choices = "", "", "", nil
	}
	if !plainID(c.Language) || len(c.Language) > 40 {
		c.Language = ""
	}
	c.Prefix, c.Suffix = strings.Clone(tail(c.Prefix, maxAround)), strings.Clone(head(c.Suffix, maxAround))
	l.table.put(&c)
}

// Record keeps an event of a completion that its client got lately. The error is an *InvalidError where the event is none, ErrUnknown, or says
// why it was not stored.
func (l *Log) Record(e Event) error {
	if err := e.check(); err != nil {
		return err
	}
	c := l.table.get(e.Completion, e.Client)
	if c == nil {
		return ErrUnknown
	}
	if l.observe != nil {
		l.observe(e)
	}
	if l.o.Dir == "" {
		return nil
	}
	now := l.now().UTC()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line(e, c, l.o.Content, now)); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	n := int64(b.Len())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total+n > l.o.MaxBytes {
		if !l.full {
			l.full = true
			l.o.Logger.Warn("events are not kept any more: the folder is full", "folder", l.o.Dir, "bytes", l.total)
		}
		return ErrFull
	}
	if err := l.turn(now); err != nil {
		return err
	}
	if had := l.added[e.Client]; had+n > l.o.MaxClientBytes {
		if had <= l.o.MaxClientBytes {
			l.added[e.Client] = l.o.MaxClientBytes + 1
			l.o.Logger.Warn("events of a client are not kept any more today", "client", e.Client, "bytes", had)
		}
		return ErrFull
	}
	if err := l.write(b.Bytes()); err != nil {
		return err
	}
	l.added[e.Client] += n
	return nil
}

// turn opens the file of the day.
func (l *Log) turn(now time.Time) error {
	day := now.Format(time.DateOnly)
	if l.file != nil && l.day == day {
		return nil
	}
	if l.file != nil {
		old := l.file
		l.file = nil
		if err := old.Close(); err != nil {
			return fmt.Errorf("events: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(l.o.Dir, "events-"+day+".jsonl"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	size, whole, err := wholeLines(f)
	if err == nil && whole < size {
		// The server was killed in the middle of a line.
		err = f.Truncate(whole)
		l.total -= size - whole
	}
	if err != nil {
		return errors.Join(fmt.Errorf("events: %s: %w", f.Name(), err), f.Close())
	}
	l.file, l.day, l.at, l.added = f, day, whole, map[string]int64{}
	return nil
}

// write adds a whole line or nothing.
func (l *Log) write(line []byte) error {
	n, err := l.file.WriteAt(line, l.at)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.at))
		}
		return fmt.Errorf("events: %w", err)
	}
	l.at += int64(n)
	l.total += int64(n)
	return nil
}

// wholeLines returns the size of f and how many bytes of it are lines that ended.
func wholeLines(f *os.File) (size, whole int64, err error) {
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return size, end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return size, 0, nil
}

// Close ends the Log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

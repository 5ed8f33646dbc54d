package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func (o HTTPOptions) withDefaults() HTTPOptions {
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Retries == 0 {
		o.Retries = 5
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Block <= 0 {
		o.Block = 1 << 20
	}
	return o
}

// maxWait bounds what a server may ask us to wait with Retry-After.
const maxWait = 5 * time.Minute

// remote is a file behind a URL.
type remote struct {
	url  string
	size int64
	etag string // as first seen; "" if the server gives none
	opts HTTPOptions
	// whole is an unnamed temporary copy of a file whose server ignores Range. It lives as long as the remote.
	whole *os.File
	mu    sync.Mutex // of whole
	// tail is the last block of the file, where a parquet file's footer is. It saves asking for it again for every row group.
	tail    []byte
	tailOff int64
}

// newRemote asks for the size of the file, by HEAD or, where a server does not answer that, from a Content-Range.
func newRemote(ctx context.Context, url string, opts HTTPOptions) (*remote, error) {
	r := &remote{url: url, size: -1, opts: opts}
	err := r.retry(ctx, func(ctx context.Context, _ func()) error {
		resp, err := r.do(ctx, http.MethodHead, "")
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		switch resp.StatusCode {
		case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusForbidden:
			return nil // pre-signed URLs are often good for GET alone
		case http.StatusOK:
			r.size = resp.ContentLength
			r.etag = strongTag(resp)
			return nil
		}
		return statusError(resp, http.StatusOK)
	})
	if err == nil && r.size < 0 {
		err = r.retry(ctx, func(ctx context.Context, alive func()) error {
			resp, err := r.do(ctx, http.MethodGet, "bytes=0-0")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusPartialContent:
				_, total, err := contentRange(resp)
				if err != nil {
					return err
				}
				r.size, r.etag = total, strongTag(resp)
				return nil
			case http.StatusOK:
				r.etag = strongTag(resp)
				return r.spool(resp, alive)
			}
			return statusError(resp, http.StatusPartialContent)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return r, nil
}

// strongTag returns the ETag if it promises equal bytes.
func strongTag(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

// do sends one request. The caller closes the body.
func (r *remote) do(ctx context.Context, method, byteRange string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url, nil)
	if err != nil {
		return nil, err
	}
	// Offsets are into the file as it is stored, so no transfer compression.
	req.Header.Set("Accept-Encoding", "identity")
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := r.opts.Client.Do(req)
	if err != nil {
		return nil, &retryable{err: err}
	}
	return resp, nil
}

// retryable marks an error after which another attempt may succeed.
type retryable struct {
	err  error
	wait time.Duration // as the server asked; 0: back off as configured
}

func (e *retryable) Error() string { return e.err.Error() }
func (e *retryable) Unwrap() error { return e.err }

func statusError(resp *http.Response, want int) error {
	err := fmt.Errorf("%s: status %s, expected %d", resp.Request.Method, resp.Status, want)
	switch c := resp.StatusCode; {
	case c == http.StatusRequestTimeout, c == http.StatusTooManyRequests, c >= 500 && c != http.StatusNotImplemented:
		return &retryable{err: err, wait: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return err
}

// retryAfter reads a Retry-After header: seconds, or an HTTP date.
func retryAfter(h string) time.Duration {
	var d time.Duration
	if s, err := strconv.Atoi(h); err == nil {
		d = time.Duration(min(max(s, 0), int(maxWait/time.Second))) * time.Second
	} else if t, err := http.ParseTime(h); err == nil {
		d = time.Until(t)
	}
	return min(max(d, 0), maxWait)
}

// retry runs attempt until it succeeds, fails for good, or the attempts are used up. An attempt is given up when it does
// not call alive for the time limit.
func (r *remote) retry(ctx context.Context, attempt func(ctx context.Context, alive func()) error) error {
	backoff := r.opts.Backoff
	for n := 0; ; n++ {
		c, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(r.opts.Timeout, cancel)
		err := attempt(c, func() { timer.Reset(r.opts.Timeout) })
		stalled := !timer.Stop()
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if stalled {
			err = &retryable{err: fmt.Errorf("nothing received for %v: %w", r.opts.Timeout, err)}
		}
		var again *retryable
		if !errors.As(err, &again) {
			return err
		}
		if n >= r.opts.Retries {
			return fmt.Errorf("after %d attempts: %w", n+1, err)
		}
		wait := backoff
		if again.wait > 0 {
			wait = again.wait
		}
		backoff = min(2*backoff, 16*r.opts.Backoff)
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// fetch reads len(p) bytes at off, all of which must lie in the file.
func (r *remote) fetch(ctx context.Context, p []byte, off int64) error {
	if whole := r.copied(); whole != nil {
		if _, err := whole.ReadAt(p, off); err != nil {
			return fmt.Errorf("%s: temporary copy: %w", r.url, err)
		}
		return nil
	}
	err := r.retry(ctx, func(ctx context.Context, alive func()) error {
		resp, err := r.do(ctx, http.MethodGet, fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusPartialContent:
			start, total, err := contentRange(resp)
			if err != nil {
				return err
			}
			if tag := strongTag(resp); tag != r.etag || total != r.size {
				return fmt.Errorf("the file changed while it was read: ETag %q, %d bytes, and before %q, %d bytes", tag, total, r.etag, r.size)
			}
			if start != off {
				return fmt.Errorf("asked for bytes from %d and got bytes from %d", off, start)
			}
			if _, err := io.ReadFull(&heard{resp.Body, alive}, p); err != nil {
				return &retryable{err: fmt.Errorf("bytes %d to %d: connection lost: %w", off, off+int64(len(p))-1, err)}
			}
			return nil
		case http.StatusOK:
			if tag := strongTag(resp); tag != r.etag {
				return fmt.Errorf("the file changed while it was read: ETag %q, and before %q", tag, r.etag)
			}
			// The server ignores Range. Its answer is the whole file, which is kept.
			if err := r.spool(resp, alive); err != nil {
				return err
			}
			_, err := r.copied().ReadAt(p, off)
			return err
		}
		return statusError(resp, http.StatusPartialContent)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", r.url, err)
	}
	return nil
}

// spool copies the whole body to a temporary file that has no name, so that it is gone with the process.
func (r *remote) spool(resp *http.Response, alive func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.whole != nil {
		return nil // somebody else was first
	}
	f, err := os.CreateTemp("", "autodev-download-*")
	if err != nil {
		return err
	}
	rm := os.Remove(f.Name())
	n, err := io.Copy(f, &heard{resp.Body, alive})
	if err != nil {
		return errors.Join(&retryable{err: fmt.Errorf("connection lost after %d bytes: %w", n, err)}, f.Close())
	}
	if rm != nil {
		return errors.Join(rm, f.Close())
	}
	if r.size >= 0 && n != r.size {
		return errors.Join(fmt.Errorf("the whole file has %d bytes, expected %d", n, r.size), f.Close())
	}
	r.size, r.whole = n, f
	return nil
}

// copied returns the temporary copy, or nil.
func (r *remote) copied() *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole
}

// heard is a reader that reports progress.
type heard struct {
	io.Reader
	alive func()
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.alive()
	}
	return n, err
}

// contentRange parses "bytes first-last/total".
func contentRange(resp *http.Response) (first, total int64, err error) {
	h := resp.Header.Get("Content-Range")
	bad := fmt.Errorf("Content-Range %q: expected \"bytes FIRST-LAST/SIZE\"", h)
	span, size, ok := strings.Cut(strings.TrimPrefix(h, "bytes "), "/")
	if !ok {
		return 0, 0, bad
	}
	from, _, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, bad
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	total, err2 := strconv.ParseInt(size, 10, 64)
	if err1 != nil || err2 != nil || first < 0 || total < 1 {
		return 0, 0, bad
	}
	return first, total, nil
}

// loadTail reads the file's last block once. It must not run beside reads.
func (r *remote) loadTail(ctx context.Context) error {
	n := min(int64(r.opts.Block), r.size)
	p := make([]byte, n)
	if err := r.fetch(ctx, p, r.size-n); err != nil {
		return err
	}
	r.tail, r.tailOff = p, r.size-n
	return nil
}

// trimTail forgets all of the tail but the last n bytes.
func (r *remote) trimTail(n int64) {
	if drop := int64(len(r.tail)) - n; drop > 0 {
		r.tail, r.tailOff = bytes.Clone(r.tail[drop:]), r.tailOff+drop
	}
}

// cachedBlocks is how many blocks a blockCache keeps: enough for the columns that are read side by side.
const cachedBlocks = 16

// blockCache keeps the most recently used blocks of the remote files of a source. It is safe for concurrent use.
type blockCache struct {
	mu     sync.Mutex
	blocks []block // most recent first
}

type block struct {
	file *remote
	off  int64
	data []byte
}

func (c *blockCache) get(file *remote, off int64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, b := range c.blocks {
		if b.file == file && b.off == off {
			copy(c.blocks[1:i+1], c.blocks[:i])
			c.blocks[0] = b
			return b.data, true
		}
	}
	return nil, false
}

func (c *blockCache) put(b block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.blocks) < cachedBlocks {
		c.blocks = append(c.blocks, block{})
	}
	copy(c.blocks[1:], c.blocks)
	c.blocks[0] = b
}

// blockReader reads a remote file in blocks through a cache.
type blockReader struct {
	ctx   context.Context
	file  *remote
	cache *blockCache
}

// ReadAt implements io.ReaderAt.
func (b *blockReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: read at offset %d", b.file.url, off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= b.file.size {
			return n, io.EOF
		}
		if tail := at - b.file.tailOff; b.file.tail != nil && tail >= 0 {
			n += copy(p[n:], b.file.tail[tail:])
			continue
		}
		size := int64(b.file.opts.Block)
		start := at / size * size
		data, ok := b.cache.get(b.file, start)
		if !ok {
			data = make([]byte, min(size, b.file.size-start))
			if err := b.file.fetch(b.ctx, data, start); err != nil {
				return n, err
			}
			b.cache.put(block{file: b.file, off: start, data: data})
		}
		n += copy(p[n:], data[at-start:])
	}
	return n, nil
}

package source

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// shard is a file of documents, local or remote, that can be opened again and again as long as it does not change.
type shard struct {
	file
	size   int64
	mtime  time.Time // local files
	remote *remote   // nil for local files
	cache  *blockCache
}

// newShard looks at a file. The cache is shared by the remote shards of one source.
func newShard(ctx context.Context, f file, opts *Options, cache *blockCache) (*shard, error) {
	s := &shard{file: f, cache: cache}
	if isURL(f.name) {
		r, err := newRemote(ctx, f.name, opts.HTTP)
		if err != nil {
			return nil, err
		}
		s.remote, s.size = r, r.size
		return s, nil
	}
	info, err := os.Stat(f.name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", f.name)
	}
	s.size, s.mtime = info.Size(), info.ModTime()
	return s, nil
}

// readerAtCloser is an opened shard.
type readerAtCloser interface {
	io.ReaderAt
	io.Closer
}

// open opens the shard for reading by one goroutine.
func (s *shard) open(ctx context.Context) (readerAtCloser, error) {
	if s.remote != nil {
		return remoteFile{&blockReader{ctx: ctx, file: s.remote, cache: s.cache}}, nil
	}
	f, err := os.Open(s.name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() != s.size || !info.ModTime().Equal(s.mtime)) {
		err = fmt.Errorf("%s: the file changed since it was opened", s.name)
	}
	if err != nil {
		// The file was only opened to be read, so closing it can lose nothing.
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

type remoteFile struct{ *blockReader }

func (remoteFile) Close() error { return nil }

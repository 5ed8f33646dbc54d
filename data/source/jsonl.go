package source

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"autodev/data"
)

// maxLine bounds the length of one JSON line, and so the memory a hostile or compressed file can take.
const maxLine = 256 << 20

// jsonl is a Source of JSON-lines files. A unit is a file, a row is a line (also a blank one, which holds no document).
type jsonl struct {
	shards []*shard
	opts   *Options
	skips  *tally
	print  string
}

func newJSONL(ctx context.Context, files []file, opts *Options, skips *tally) (*jsonl, error) {
	j := &jsonl{opts: opts, skips: skips}
	lines := []string{"jsonl", opts.Column, strings.Join(opts.Languages, ",")}
	cache := &blockCache{}
	for _, f := range files {
		s, err := newShard(ctx, f, opts, cache)
		if err != nil {
			return nil, fmt.Errorf("data source: %w", err)
		}
		j.shards = append(j.shards, s)
		lines = append(lines, fmt.Sprintf("%s %d", s.key, s.size))
	}
	j.print = fingerprint(lines)
	return j, nil
}

func (j *jsonl) Units() int          { return len(j.shards) }
func (j *jsonl) Fingerprint() string { return j.print }

func (j *jsonl) OpenUnit(ctx context.Context, unit int, row int64) (data.Reader, error) {
	if unit < 0 || unit >= len(j.shards) {
		return nil, fmt.Errorf("JSON lines: file %d of %d", unit, len(j.shards))
	}
	s := j.shards[unit]
	f, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &jsonlReader{ctx: ctx, set: j, shard: s, unit: unit, file: f}
	r.in = io.NewSectionReader(f, 0, s.size)
	r.lines = bufio.NewReaderSize(r.in, 1<<16)
	if strings.HasSuffix(strings.ToLower(s.key), ".gz") {
		if r.gz, err = gzip.NewReader(r.lines); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: gzip header: %w", s.name, err), f.Close())
		}
		r.lines = bufio.NewReaderSize(r.gz, 1<<16)
	}
	for r.row < row {
		if _, err := r.line(); err == io.EOF {
			break
		} else if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return r, nil
}

type jsonlReader struct {
	ctx   context.Context
	set   *jsonl
	shard *shard
	unit  int
	row   int64 // of the next line
	file  io.Closer
	in    *io.SectionReader // of the file as it is stored
	gz    *gzip.Reader
	lines *bufio.Reader
	buf   []byte
}

func (r *jsonlReader) Close() error {
	if r.gz != nil {
		return errors.Join(r.gz.Close(), r.file.Close())
	}
	return r.file.Close()
}

// line returns the next line without its end, valid until the next call.
func (r *jsonlReader) line() ([]byte, error) {
	// Here and not only between documents: a large file may have none that is wanted.
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	r.buf = r.buf[:0]
	for {
		part, err := r.lines.ReadSlice('\n')
		r.buf = append(r.buf, part...)
		if err == io.EOF {
			if at, _ := r.in.Seek(0, io.SeekCurrent); at < r.shard.size {
				return nil, fmt.Errorf("%s: line %d: the file ends after %d bytes, and had %d when it was opened", r.shard.name, r.row+1, at, r.shard.size)
			}
		}
		switch {
		case err == nil:
			r.row++
			return r.buf[:len(r.buf)-1], nil
		case err == io.EOF && len(r.buf) > 0:
			r.row++
			return r.buf, nil
		case err == io.EOF:
			return nil, io.EOF
		case err != bufio.ErrBufferFull:
			return nil, fmt.Errorf("%s: line %d: %w", r.shard.name, r.row+1, err)
		case len(r.buf) > maxLine:
			return nil, fmt.Errorf("%s: line %d: longer than %d bytes", r.shard.name, r.row+1, maxLine)
		}
	}
}

func (r *jsonlReader) Next() (data.Document, data.Cursor, error) {
	for {
		at := data.Cursor{Unit: r.unit, Row: r.row}
		line, err := r.line()
		if err != nil {
			return data.Document{}, at, err
		}
		if at.Row == 0 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // Windows programs begin files with a byte order mark
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		origin := data.Origin{File: r.shard.name, Row: at.Row}
		if !utf8.Valid(line) {
			r.set.skips.skip(origin, skipUTF8)
			continue
		}
		doc, reason, err := r.set.parse(line, r.shard.language)
		if err != nil {
			return data.Document{}, at, fmt.Errorf("%s: line %d: %w", r.shard.name, at.Row+1, err)
		}
		if reason != "" {
			r.set.skips.skip(origin, reason)
			continue
		}
		if !r.set.opts.wants(doc.Language) {
			continue
		}
		doc.Origin = origin
		return doc, at, nil
	}
}

// Keys under which the fields of a document are looked for, the first that is there.
var (
	repositoryKeys = []string{"repository", "max_stars_repo_name", "repo_name", "repository_name", "repo"}
	pathKeys       = []string{"path", "max_stars_repo_path"}
	languageKeys   = []string{"language", "lang"}
)

// parse reads one line. A reason that is not empty says why it holds no document.
func (j *jsonl) parse(line []byte, folder string) (doc data.Document, reason string, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return doc, "", fmt.Errorf("byte %d: %w", syntax.Offset, err)
		}
		return doc, "", fmt.Errorf("expected a JSON object: %w", err)
	}
	if fields == nil {
		return doc, "", errors.New("expected a JSON object, found null")
	}
	content, hasContent := fields[j.opts.Column]
	ids, hasIDs := fields["input_ids"]
	if !hasContent && !hasIDs {
		return doc, "", fmt.Errorf("neither %q nor \"input_ids\" in the object", j.opts.Column)
	}
	if hasIDs && string(ids) != "null" {
		var wide []int64
		if err := json.Unmarshal(ids, &wide); err != nil {
			return doc, "", fmt.Errorf("input_ids: expected a list of token ids: %w", err)
		}
		doc.IDs = make([]int32, len(wide))
		for i, id := range wide {
			if id < 0 || id > math.MaxInt32 {
				return doc, "", fmt.Errorf("input_ids[%d]: %d is not a token id", i, id)
			}
			doc.IDs[i] = int32(id)
		}
	}
	switch {
	case hasContent && string(content) != "null":
		if err := json.Unmarshal(content, &doc.Content); err != nil {
			return doc, "", fmt.Errorf("%s: expected a string: %w", j.opts.Column, err)
		}
	case doc.IDs == nil:
		return doc, skipNull, nil
	}
	for _, f := range []struct {
		to   *string
		keys []string
	}{{&doc.Repository, repositoryKeys}, {&doc.Path, pathKeys}, {&doc.Language, languageKeys}} {
		for _, key := range f.keys {
			v, ok := fields[key]
			if !ok || string(v) == "null" {
				continue
			}
			if err := json.Unmarshal(v, f.to); err != nil {
				return doc, "", fmt.Errorf("%s: expected a string: %w", key, err)
			}
			break
		}
	}
	doc.Language = languageFor(doc.Language, folder, doc.Path)
	return doc, "", nil
}

// languageFor is the document's language: as its own field says, else its shard's folder, else its file name.
func languageFor(field, folder, path string) string {
	if field != "" {
		return NormalizeLanguage(field)
	}
	if folder != "" {
		return folder
	}
	return LanguageOf(path)
}

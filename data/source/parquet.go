package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"autodev/data"
)

// parquetSet is a Source of parquet files. A unit is a row group, a row is a row of it.
type parquetSet struct {
	files []parquetFile
	opts  *Options
	skips *tally
	print string
}

type parquetFile struct {
	*shard
	first   int     // unit of the first row group
	rows    []int64 // rows by row group
	starts  []int64 // row of the file at which each row group starts
	columns columns
}

// columns are the leaf columns that are read, by index; -1 for those a file lacks.
type columns struct{ content, repository, path, language int }

var (
	repositoryColumns = []string{"max_stars_repo_name", "repository", "repo_name", "repository_name"}
	pathColumns       = []string{"max_stars_repo_path", "path"}
	languageColumns   = []string{"lang", "language"}
)

// newParquet reads the footers of the files.
func newParquet(ctx context.Context, files []file, opts *Options, skips *tally) (*parquetSet, error) {
	set := &parquetSet{opts: opts, skips: skips}
	lines := []string{"parquet", opts.Column, strings.Join(opts.Languages, ",")}
	units := 0
	cache := &blockCache{}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := newShard(ctx, f, opts, cache)
		if err != nil {
			return nil, fmt.Errorf("data source: %w", err)
		}
		pf := parquetFile{shard: s, first: units}
		if err := pf.readFooter(ctx, opts.Column); err != nil {
			return nil, at(s.name, err)
		}
		units += len(pf.rows)
		set.files = append(set.files, pf)
		lines = append(lines, fmt.Sprintf("%s %d %v", s.key, s.size, pf.rows))
	}
	set.print = fingerprint(lines)
	return set, nil
}

// maxName bounds names of repositories, paths and languages in bytes: a dictionary can repeat a long one without end, and many documents
// are held while they are shuffled.
const maxName = 1 << 16

// guarded runs fn and turns a panic of the parquet library into an error.
func guarded(what string, fn func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: damaged parquet data: %v", what, r)
		}
	}()
	return fn()
}

// openParquet opens the library's view of a file.
func (f *parquetFile) openParquet(r io.ReaderAt) (pf *parquet.File, err error) {
	err = guarded("footer", func() error {
		if err := checkFooter(r, f.size); err != nil {
			return err
		}
		pf, err = parquet.OpenFile(r, f.size,
			parquet.SkipMagicBytes(true), // checkFooter has looked
			parquet.SkipPageIndex(true),
			parquet.SkipBloomFilters(true),
			parquet.ReadBufferSize(64<<10))
		return err
	})
	return pf, err
}

func (f *parquetFile) readFooter(ctx context.Context, content string) error {
	if f.remote != nil {
		if err := f.remote.loadTail(ctx); err != nil {
			return err
		}
	}
	r, err := f.open(ctx)
	if err != nil {
		return err
	}
	pf, err := f.openParquet(r)
	if err == nil && f.remote != nil {
		n, err := footerSize(r, f.size)
		if err != nil {
			return errors.Join(err, r.Close())
		}
		f.remote.trimTail(n)
	}
	if err == nil {
		err = guarded("schema", func() error { return f.plan(pf, content) })
	}
	return errors.Join(err, r.Close())
}

// plan finds the columns and the row groups.
func (f *parquetFile) plan(pf *parquet.File, content string) error {
	schema := pf.Schema()
	find := func(names ...string) int {
		for _, name := range names {
			leaf, ok := schema.Lookup(name)
			if ok && leaf.MaxRepetitionLevel == 0 && leaf.MaxDefinitionLevel <= 1 && isText(leaf.Node.Type()) {
				return leaf.ColumnIndex
			}
		}
		return -1
	}
	f.columns = columns{find(content), find(repositoryColumns...), find(pathColumns...), find(languageColumns...)}
	if f.columns.content < 0 {
		if leaf, ok := schema.Lookup(content); ok {
			return fmt.Errorf("column %s: type %v, expected one string a row", content, leaf.Node.Type())
		}
		var names []string
		for _, c := range schema.Columns() {
			names = append(names, strings.Join(c, "."))
		}
		if show := 30; len(names) > show {
			names = append(names[:show], fmt.Sprintf("and %d more", len(names)-show))
		}
		return fmt.Errorf("no column %q among %s", content, strings.Join(names, ", "))
	}
	total := int64(0)
	for g, group := range pf.RowGroups() {
		n := group.NumRows()
		meta := pf.Metadata().RowGroups[g]
		if len(meta.Columns) != len(schema.Columns()) {
			return fmt.Errorf("row group %d: %d columns, the schema has %d", g, len(meta.Columns), len(schema.Columns()))
		}
		if n < 0 || n > 1<<40 {
			return fmt.Errorf("row group %d: %d rows", g, n)
		}
		for _, c := range f.columns.list() {
			if v := meta.Columns[c].MetaData.NumValues; v != n {
				return fmt.Errorf("row group %d: column %s has %d values, the row group %d rows", g, strings.Join(schema.Columns()[c], "."), v, n)
			}
		}
		f.starts = append(f.starts, total)
		f.rows = append(f.rows, n)
		total += n
	}
	if total != pf.NumRows() {
		return fmt.Errorf("the row groups hold %d rows, the footer says %d", total, pf.NumRows())
	}
	return nil
}

// list returns the columns that are there.
func (c columns) list() []int {
	var l []int
	for _, i := range []int{c.content, c.repository, c.path, c.language} {
		if i >= 0 {
			l = append(l, i)
		}
	}
	return l
}

func isText(t parquet.Type) bool { return t.Kind() == parquet.ByteArray }

func (p *parquetSet) Units() int {
	if len(p.files) == 0 {
		return 0
	}
	last := p.files[len(p.files)-1]
	return last.first + len(last.rows)
}

func (p *parquetSet) Fingerprint() string { return p.print }

func (p *parquetSet) OpenUnit(ctx context.Context, unit int, row int64) (data.Reader, error) {
	for i := range p.files {
		f := &p.files[i]
		if g := unit - f.first; g >= 0 && g < len(f.rows) {
			return p.openGroup(ctx, f, g, unit, row)
		}
	}
	return nil, fmt.Errorf("parquet: row group %d of %d", unit, p.Units())
}

func (p *parquetSet) openGroup(ctx context.Context, f *parquetFile, g, unit int, row int64) (data.Reader, error) {
	in, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	r := &groupReader{ctx: ctx, set: p, file: f, group: g, unit: unit, in: in}
	err = r.start(row)
	if err != nil {
		return nil, errors.Join(r.fail(err), r.Close())
	}
	return r, nil
}

// groupReader reads the columns of one row group side by side.
type groupReader struct {
	ctx   context.Context
	set   *parquetSet
	file  *parquetFile
	group int
	unit  int
	row   int64 // next, within the row group
	in    io.Closer

	content, repository, path, language *columnReader // nil for columns the file lacks
}

func (r *groupReader) fail(err error) error {
	return fmt.Errorf("%s: row group %d: row %d: %w", r.file.name, r.group, r.row, err)
}

func (r *groupReader) all() []*columnReader {
	var l []*columnReader
	for _, c := range []*columnReader{r.content, r.repository, r.path, r.language} {
		if c != nil {
			l = append(l, c)
		}
	}
	return l
}

func (r *groupReader) start(row int64) error {
	at := r.in.(io.ReaderAt)
	pf, err := r.file.openParquet(at)
	if err != nil {
		return err
	}
	rows := r.file.rows[r.group]
	if groups := pf.RowGroups(); len(groups) != len(r.file.rows) || groups[r.group].NumRows() != rows {
		return errors.New("the file changed since it was opened")
	}
	return guarded("row group", func() error {
		chunks := pf.RowGroups()[r.group].ColumnChunks()
		for _, c := range []struct {
			to    **columnReader
			index int
		}{{&r.content, r.file.columns.content}, {&r.repository, r.file.columns.repository}, {&r.path, r.file.columns.path}, {&r.language, r.file.columns.language}} {
			if c.index < 0 {
				continue
			}
			meta := &pf.Metadata().RowGroups[r.group].Columns[c.index].MetaData
			leaf, _ := pf.Schema().Lookup(meta.PathInSchema...)
			guard, err := newPageGuard(at, r.file.size, meta, rows, leaf.MaxDefinitionLevel > 0)
			if err != nil {
				return fmt.Errorf("column %s: %w", strings.Join(meta.PathInSchema, "."), err)
			}
			*c.to = &columnReader{name: strings.Join(meta.PathInSchema, "."), guard: guard, pages: chunks[c.index].(*parquet.FileColumnChunk).PagesFrom(guard)}
		}
		for r.row < min(row, rows) {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			for _, c := range r.all() {
				if _, err := c.next(); err != nil {
					return c.fail(err)
				}
			}
			r.row++
		}
		return nil
	})
}

func (r *groupReader) Close() error {
	var errs []error
	for _, c := range r.all() {
		errs = append(errs, guarded("close", c.close))
	}
	return errors.Join(append(errs, r.in.Close())...)
}

func (r *groupReader) Next() (data.Document, data.Cursor, error) {
	for {
		at := data.Cursor{Unit: r.unit, Row: r.row}
		if err := r.ctx.Err(); err != nil {
			return data.Document{}, at, err
		}
		if r.row >= r.file.rows[r.group] {
			// A chunk that goes on after its last row is damaged.
			err := guarded("end", func() error {
				for _, c := range r.all() {
					if _, err := c.next(); err == nil {
						return c.fail(errors.New("more values than rows"))
					} else if err != io.EOF {
						return c.fail(err)
					}
				}
				return nil
			})
			if err != nil {
				return data.Document{}, at, r.fail(err)
			}
			return data.Document{}, at, io.EOF
		}
		doc, reason, err := r.read()
		if err != nil {
			return data.Document{}, at, r.fail(err)
		}
		r.row++
		if reason != "" {
			r.set.skips.skip(doc.Origin, reason)
			continue
		}
		if !r.set.opts.wants(doc.Language) {
			continue
		}
		return doc, at, nil
	}
}

// read reads one row. A reason that is not empty says why it holds no document.
func (r *groupReader) read() (doc data.Document, reason string, err error) {
	doc.Origin = data.Origin{File: r.file.name, Row: r.file.starts[r.group] + r.row}
	err = guarded("row", func() error {
		for _, f := range []struct {
			to *string
			c  *columnReader
		}{{&doc.Content, r.content}, {&doc.Repository, r.repository}, {&doc.Path, r.path}, {&doc.Language, r.language}} {
			if f.c == nil {
				continue
			}
			v, err := f.c.next()
			if err == io.EOF {
				err = fmt.Errorf("fewer values than the %d rows of the row group", r.file.rows[r.group])
			}
			if err != nil {
				return f.c.fail(err)
			}
			if v.IsNull() {
				if f.c == r.content {
					reason = skipNull
				}
				continue
			}
			if n := len(v.ByteArray()); f.c != r.content && n > maxName {
				return f.c.fail(fmt.Errorf("%d bytes, expected at most %d", n, maxName))
			}
			// The value aliases the page, so it is copied.
			*f.to = string(v.ByteArray())
		}
		return nil
	})
	if err != nil {
		return doc, "", err
	}
	if reason == "" && !utf8.ValidString(doc.Content) {
		reason = skipUTF8
	}
	doc.Language = languageFor(doc.Language, r.file.language, doc.Path)
	return doc, reason, nil
}

// columnReader reads the values of one column chunk, page by page.
type columnReader struct {
	name   string
	guard  *pageGuard
	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader
	buf    [64]parquet.Value
	have   []parquet.Value
}

func (c *columnReader) fail(err error) error { return fmt.Errorf("column %s: %w", c.name, err) }

// next returns the next value, good until the page is left, or io.EOF after the last.
func (c *columnReader) next() (parquet.Value, error) {
	for {
		if len(c.have) > 0 {
			v := c.have[0]
			c.have = c.have[1:]
			return v, nil
		}
		if c.page == nil {
			if err := c.guard.next(); err != nil {
				return parquet.Value{}, err
			}
			page, err := c.pages.ReadPage()
			if err != nil {
				return parquet.Value{}, err
			}
			c.page, c.values = page, page.Values()
		}
		n, err := c.values.ReadValues(c.buf[:])
		c.have = c.buf[:n]
		if err != nil && err != io.EOF {
			return parquet.Value{}, err
		}
		if n == 0 {
			if err == nil {
				return parquet.Value{}, io.ErrNoProgress
			}
			parquet.Release(c.page)
			c.page = nil
		}
	}
}

func (c *columnReader) close() error {
	if c.page != nil {
		parquet.Release(c.page)
		c.page = nil
	}
	return c.pages.Close()
}

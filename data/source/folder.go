package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"autodev/data"
)

// folder is a Source of source code files: one unit, and one document, a file. Files come in the order of their
// slash-separated paths below the root.
type folder struct {
	root  string
	files []folderFile
	opts  *Options
	skips *tally
	print string
}

type folderFile struct {
	rel      string // slash-separated path below the root
	language string
	size     int64
}

// newFolder walks root. Files of no known language are not documents and not counted; what .gitignore excludes is as if
// it were not there.
func newFolder(ctx context.Context, root string, opts *Options, skips *tally) (*folder, error) {
	f := &folder{root: root, opts: opts, skips: skips}
	stack, prefix, err := ignoreAbove(root)
	if err != nil {
		return nil, fmt.Errorf("data source %s: %w", root, err)
	}
	if err := f.walk(ctx, "", prefix, stack); err != nil {
		return nil, fmt.Errorf("data source %s: %w", root, err)
	}
	if len(f.files) == 0 {
		if len(opts.Languages) > 0 {
			return nil, fmt.Errorf("data source %s: the folder holds no file of language %s", root, strings.Join(opts.Languages, ", "))
		}
		return nil, fmt.Errorf("data source %s: the folder holds no source file of a known language, no .parquet and no .jsonl file", root)
	}
	slices.SortFunc(f.files, func(a, b folderFile) int { return strings.Compare(a.rel, b.rel) })
	lines := []string{"folder", fmt.Sprint(opts.MaxFileBytes)}
	for _, file := range f.files {
		lines = append(lines, fmt.Sprintf("%s %d", file.rel, file.size))
	}
	f.print = fingerprint(lines)
	return f, nil
}

// walk adds the files below the folder rel. Prefix is the path of the root below the top of the git work tree, to which
// the stack's rules are relative.
func (f *folder) walk(ctx context.Context, rel, prefix string, stack []*ignoreFile) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Join(f.root, filepath.FromSlash(rel))
	rules, err := readIgnore(dir, prefix+rel)
	if err != nil {
		return err
	}
	if rules != nil {
		stack = append(slices.Clip(stack), rules)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := rel + e.Name()
		if e.Name() == ".git" || ignored(stack, prefix+name, e.IsDir()) {
			continue
		}
		if e.IsDir() {
			if err := f.walk(ctx, name+"/", prefix, stack); err != nil {
				return err
			}
			continue
		}
		language := LanguageOf(e.Name())
		if language == "" || !f.opts.wants(language) || len(f.opts.Languages) == 0 && markup[language] {
			continue
		}
		origin := data.Origin{File: filepath.Join(f.root, filepath.FromSlash(name))}
		if e.Type()&fs.ModeSymlink != 0 {
			f.skips.skip(origin, skipSymlink)
			continue
		}
		if !e.Type().IsRegular() {
			f.skips.skip(origin, skipSpecial)
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the folder was listed
		}
		if err != nil {
			return err
		}
		if info.Size() > f.opts.MaxFileBytes {
			f.skips.skip(origin, skipLarge)
			continue
		}
		f.files = append(f.files, folderFile{rel: name, language: language, size: info.Size()})
	}
	return nil
}

func (f *folder) Units() int          { return len(f.files) }
func (f *folder) Fingerprint() string { return f.print }

func (f *folder) OpenUnit(_ context.Context, unit int, row int64) (data.Reader, error) {
	if unit < 0 || unit >= len(f.files) {
		return nil, fmt.Errorf("data source %s: file %d of %d", f.root, unit, len(f.files))
	}
	return &folderReader{folder: f, unit: unit, row: row}, nil
}

type folderReader struct {
	folder *folder
	unit   int
	row    int64
}

func (r *folderReader) Close() error { return nil }

func (r *folderReader) Next() (data.Document, data.Cursor, error) {
	at := data.Cursor{Unit: r.unit, Row: r.row}
	if r.row != 0 {
		return data.Document{}, at, io.EOF
	}
	r.row++
	f := r.folder
	file := f.files[r.unit]
	origin := data.Origin{File: filepath.Join(f.root, filepath.FromSlash(file.rel))}
	text, err := os.ReadFile(origin.File)
	if err != nil {
		return data.Document{}, at, err
	}
	if int64(len(text)) != file.size {
		return data.Document{}, at, fmt.Errorf("%s: %d bytes, but %d when the folder was listed: the file changed", origin.File, len(text), file.size)
	}
	// Git's rule for binary files, on the same first 8000 bytes.
	if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
		f.skips.skip(origin, skipBinary)
		return data.Document{}, at, io.EOF
	}
	if !utf8.Valid(text) {
		f.skips.skip(origin, skipUTF8)
		return data.Document{}, at, io.EOF
	}
	return data.Document{
		Content:    string(text),
		Repository: f.repository(file.rel),
		Path:       file.rel,
		Language:   file.language,
		Origin:     origin,
	}, at, nil
}

// repository is the first path element below the root, or the root's own name for a file that lies directly in it.
func (f *folder) repository(rel string) string {
	if first, _, deep := strings.Cut(rel, "/"); deep {
		return first
	}
	abs, err := filepath.Abs(f.root)
	if err != nil {
		abs = f.root
	}
	return filepath.Base(abs)
}

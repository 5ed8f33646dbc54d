package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"autodev/data"
)

// Formats of Options.Format.
const (
	FormatAuto    = "auto"    // by extension; a folder is shards if it holds shards, else source code
	FormatParquet = "parquet" // .parquet files
	FormatJSONL   = "jsonl"   // .jsonl, .jsonl.gz, .ndjson or .ndjson.gz files
	FormatFolder  = "folder"  // source code files
)

// Options says how to read. The zero value reads everything with defaults.
type Options struct {
	Column       string       // column or JSON key of the text; default "content"
	Languages    []string     // the-stack folder names or common names ("C#"); empty: all
	Format       string       // one of the Format constants; default FormatAuto
	MaxDocuments int          // read only the first so many documents; 0: all
	MaxFileBytes int64        // folders: skip larger files; default 1 MiB
	HTTP         HTTPOptions  // http(s) sources
	Logger       *slog.Logger // default slog.Default()
}

// HTTPOptions tunes requests. The zero value has defaults fit for public servers.
type HTTPOptions struct {
	Client  *http.Client  // default http.DefaultClient
	Retries int           // attempts after the first; default 5, negative: none
	Backoff time.Duration // before the first retry, doubling up to 16 times that; default 1 s
	Timeout time.Duration // an attempt is given up after so long without a byte; default 60 s
	Block   int           // bytes a request asks for; default 1 MiB
}

func (o Options) withDefaults() (Options, error) {
	if o.Column == "" {
		o.Column = "content"
	}
	if o.Format == "" {
		o.Format = FormatAuto
	}
	if !slices.Contains([]string{FormatAuto, FormatParquet, FormatJSONL, FormatFolder}, o.Format) {
		return o, fmt.Errorf("format %q: expected auto, parquet, jsonl or folder", o.Format)
	}
	if o.MaxDocuments < 0 {
		return o, fmt.Errorf("at most %d documents: expected 0 (all) or more", o.MaxDocuments)
	}
	if o.MaxFileBytes == 0 {
		o.MaxFileBytes = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	langs := make([]string, len(o.Languages))
	for i, l := range o.Languages {
		langs[i] = NormalizeLanguage(l)
	}
	slices.Sort(langs)
	o.Languages = slices.Compact(langs)
	o.HTTP = o.HTTP.withDefaults()
	return o, nil
}

// wants reports whether documents of a language are asked for.
func (o *Options) wants(language string) bool {
	return len(o.Languages) == 0 || slices.Contains(o.Languages, language)
}

// Set is an opened source. It implements data.Source.
type Set struct {
	data.Source
	skips *tally
}

// Skipped returns the number of skipped documents by reason, as far as the Set has been read. A document read twice counts
// once.
func (s *Set) Skipped() map[string]int { return s.skips.counts() }

// Open opens one or several specs as one Source, in the order given. A spec is a file, a glob pattern (its matches in name order),
// a folder (of shards, or of source code), or the http(s) URL of a file.
func Open(ctx context.Context, opts Options, specs ...string) (*Set, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(specs) == 0 {
		return nil, errors.New("no data source given")
	}
	skips := &tally{seen: map[rowBlock]uint64{}, by: map[string]int{}, log: opts.Logger}
	var parts []data.Source
	for _, spec := range specs {
		src, err := openSpec(ctx, spec, &opts, skips)
		if err != nil {
			return nil, err
		}
		parts = append(parts, src)
	}
	src := data.Concat(parts...)
	if opts.MaxDocuments > 0 {
		if src, err = data.Limit(ctx, src, opts.MaxDocuments); err != nil {
			return nil, err
		}
	}
	return &Set{Source: src, skips: skips}, nil
}

// file is one shard: a file of documents.
type file struct {
	name     string // full path or URL, for messages
	key      string // stable name for the fingerprint: the path below the spec
	language string // from the folder name, "" if that is no language
}

func isURL(spec string) bool {
	return strings.HasPrefix(spec, "http://") || strings.HasPrefix(spec, "https://")
}

func openSpec(ctx context.Context, spec string, opts *Options, skips *tally) (data.Source, error) {
	if isURL(spec) {
		u, err := url.Parse(spec)
		if err != nil {
			return nil, fmt.Errorf("data source %s: %w", spec, err)
		}
		return openFiles(ctx, spec, []file{{name: spec, key: path.Base(u.Path), language: knownLanguage(path.Base(path.Dir(u.Path)))}}, opts, skips)
	}
	info, err := os.Stat(spec)
	switch {
	case err == nil && info.IsDir():
		return openFolder(ctx, spec, opts, skips)
	case err == nil:
		return openFiles(ctx, spec, []file{localFile(spec, filepath.Base(spec))}, opts, skips)
	case !errors.Is(err, fs.ErrNotExist) || !strings.ContainsAny(spec, "*?["):
		return nil, fmt.Errorf("data source: %w", err)
	}
	names, err := filepath.Glob(spec)
	if err != nil {
		return nil, fmt.Errorf("data source %s: %w", spec, err)
	}
	slices.Sort(names)
	var files []file
	for _, name := range names {
		if info, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("data source %s: %w", spec, err)
		} else if info.Mode().IsRegular() {
			files = append(files, localFile(name, filepath.ToSlash(name)))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("data source %s: no file matches", spec)
	}
	return openFiles(ctx, spec, files, opts, skips)
}

func localFile(name, key string) file {
	abs, err := filepath.Abs(name)
	if err != nil {
		abs = name
	}
	return file{name: name, key: key, language: knownLanguage(filepath.Base(filepath.Dir(abs)))}
}

// openFolder decides what a folder holds.
func openFolder(ctx context.Context, root string, opts *Options, skips *tally) (data.Source, error) {
	if opts.Format == FormatFolder {
		return newFolder(ctx, root, opts, skips)
	}
	shards := map[string][]file{}
	code := ""
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return filepath.SkipDir
			}
			return nil
		}
		if f := formatOf(p); f != "" {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			shards[f] = append(shards[f], localFile(p, filepath.ToSlash(rel)))
		} else if code == "" && isCode(p) {
			code = p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("data source %s: %w", root, err)
	}
	format := opts.Format
	if format == FormatAuto {
		switch {
		case len(shards) == 0:
			return newFolder(ctx, root, opts, skips)
		case len(shards) > 1:
			return nil, fmt.Errorf("data source %s: the folder holds parquet files (%s) and JSON lines (%s); choose with format parquet or jsonl", root, shards[FormatParquet][0].name, shards[FormatJSONL][0].name)
		case code != "":
			for f, files := range shards {
				return nil, fmt.Errorf("data source %s: the folder holds source code (%s) and %s files (%s); choose with format folder or %s", root, code, f, files[0].name, f)
			}
		}
		for f := range shards {
			format = f
		}
	}
	files := shards[format]
	if len(files) == 0 {
		return nil, fmt.Errorf("data source %s: the folder holds no %s file", root, format)
	}
	if len(opts.Languages) > 0 {
		// Shards in a folder of another language need not be opened.
		all := len(files)
		files = slices.DeleteFunc(files, func(f file) bool { return f.language != "" && !opts.wants(f.language) })
		if len(files) == 0 {
			return nil, fmt.Errorf("data source %s: none of the %d files is in a folder of language %s", root, all, strings.Join(opts.Languages, ", "))
		}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.key, b.key) })
	return openFormat(ctx, format, files, opts, skips)
}

func openFiles(ctx context.Context, spec string, files []file, opts *Options, skips *tally) (data.Source, error) {
	format := opts.Format
	if format == FormatFolder {
		return nil, fmt.Errorf("data source %s: not a folder", spec)
	}
	if format == FormatAuto {
		for _, f := range files {
			name := f.name
			if isURL(name) {
				name = f.key
			}
			of := formatOf(name)
			if of == "" {
				return nil, fmt.Errorf("data source %s: file %s is neither .parquet nor .jsonl; choose with format parquet or jsonl", spec, f.name)
			}
			if format != FormatAuto && of != format {
				return nil, fmt.Errorf("data source %s: matches %s and %s files; name one kind", spec, format, of)
			}
			format = of
		}
	}
	return openFormat(ctx, format, files, opts, skips)
}

func openFormat(ctx context.Context, format string, files []file, opts *Options, skips *tally) (data.Source, error) {
	if format == FormatParquet {
		return newParquet(ctx, files, opts, skips)
	}
	return newJSONL(ctx, files, opts, skips)
}

func formatOf(name string) string {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".parquet"):
		return FormatParquet
	case strings.HasSuffix(strings.TrimSuffix(name, ".gz"), ".jsonl"), strings.HasSuffix(strings.TrimSuffix(name, ".gz"), ".ndjson"):
		return FormatJSONL
	}
	return ""
}

// tally counts skipped documents, each once however often it is read. It takes a bit for a row, not an entry: a small file can
// hold any number of rows without a document.
type tally struct {
	mu   sync.Mutex
	seen map[rowBlock]uint64
	by   map[string]int // reason
	log  *slog.Logger
}

// rowBlock is 64 rows of a file.
type rowBlock struct {
	file  string
	block int64
}

func (t *tally) skip(o data.Origin, reason string) {
	at, bit := rowBlock{o.File, o.Row / 64}, uint64(1)<<(o.Row%64)
	t.mu.Lock()
	known := t.seen[at]&bit != 0
	if !known {
		t.seen[at] |= bit
		t.by[reason]++
	}
	t.mu.Unlock()
	if !known {
		t.log.Debug("document skipped", "file", o.File, "row", o.Row, "reason", reason)
	}
}

func (t *tally) counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.by)
}

// Reasons for which a document is skipped.
const (
	skipNull    = "content is null"
	skipUTF8    = "not UTF-8"
	skipBinary  = "binary file"
	skipLarge   = "file too large"
	skipSymlink = "symbolic link"
	skipSpecial = "not a regular file"
)

// fingerprint hashes lines.
func fingerprint(lines []string) string {
	h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(h[:16])
}

// at prefixes an error with the file it concerns, unless the error names the file already, as those of package os do.
func at(name string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Path == name {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

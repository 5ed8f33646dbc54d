package source

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ignoreRule is one pattern of a .gitignore file (gitignore(5)).
type ignoreRule struct {
	pattern  string // without leading and trailing slash
	negate   bool   // "!": include again
	dirOnly  bool   // trailing slash: matches folders only
	basename bool   // no other slash: matches the last path element at any depth
}

// ignoreFile is the rules of the .gitignore of one folder.
type ignoreFile struct {
	base  string // folder, slash-separated, relative to the walk's root; "" for the root, or "../" steps above it
	rules []ignoreRule
}

// parseIgnore reads the text of a .gitignore file.
func parseIgnore(text []byte) []ignoreRule {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var rules []ignoreRule
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = trimTrailingSpaces(line)
		var r ignoreRule
		if strings.HasPrefix(line, "!") {
			r.negate = true
			line = line[1:]
		}
		if strings.HasSuffix(line, "/") {
			r.dirOnly = true
			line = line[:len(line)-1]
		}
		r.basename = !strings.Contains(line, "/")
		line = strings.TrimPrefix(line, "/")
		if line == "" {
			continue
		}
		r.pattern = line
		rules = append(rules, r)
	}
	return rules
}

// trimTrailingSpaces removes spaces at the end that are not quoted with a backslash.
func trimTrailingSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
		case '\\':
			i++
			end = min(i+1, len(s))
		default:
			end = i + 1
		}
	}
	return s[:end]
}

// match reports whether the last rule of f that concerns the path ignores it; known is false when no rule concerns it.
// The path is relative to the folder of f.
func (f *ignoreFile) match(rel string, isDir bool) (ignored, known bool) {
	for i := len(f.rules) - 1; i >= 0; i-- {
		r := &f.rules[i]
		if r.dirOnly && !isDir {
			continue
		}
		if r.matches(rel) {
			return !r.negate, true
		}
	}
	return false, false
}

func (r *ignoreRule) matches(rel string) bool {
	if r.basename {
		return wildmatch(r.pattern, rel[strings.LastIndexByte(rel, '/')+1:])
	}
	// Git compares what comes before the first wildcard apart, so that the ** of "a**/b" is at the beginning of what is left
	// and matches folders too.
	n := strings.IndexAny(r.pattern, `*?[\`)
	if n < 0 {
		return r.pattern == rel
	}
	rest, ok := strings.CutPrefix(rel, r.pattern[:n])
	return ok && wildmatch(r.pattern[n:], rest)
}

// readIgnore reads the .gitignore of a folder, which may be missing.
func readIgnore(dir, base string) (*ignoreFile, error) {
	name := filepath.Join(dir, ".gitignore")
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return nil, nil // git does not follow a symbolic link here, and a folder of that name is not a rule file
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rules := parseIgnore(text)
	if len(rules) == 0 {
		return nil, nil
	}
	return &ignoreFile{base: base, rules: rules}, nil
}

// ignoreAbove reads the .gitignore files of the folders above root, up to the top of the git work tree that holds it.
// Outside a work tree there are none. prefix is the path of root below that top, with a slash at the end.
func ignoreAbove(root string) (stack []*ignoreFile, prefix string, err error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, "", err
	}
	var dirs []string
	for dir := abs; ; dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			return nil, "", nil
		}
	}
	top := dirs[len(dirs)-1]
	for i := len(dirs) - 1; i > 0; i-- {
		base, err := filepath.Rel(top, dirs[i])
		if err != nil {
			return nil, "", err
		}
		f, err := readIgnore(dirs[i], folderPrefix(base))
		if err != nil {
			return nil, "", err
		}
		if f != nil {
			stack = append(stack, f)
		}
	}
	rel, err := filepath.Rel(top, abs)
	if err != nil {
		return nil, "", err
	}
	return stack, folderPrefix(rel), nil
}

func folderPrefix(rel string) string {
	if rel == "." || rel == "" {
		return ""
	}
	return filepath.ToSlash(rel) + "/"
}

// ignored asks the files from the deepest to the top; the first that knows the path decides. Path and the bases of the
// stack are relative to the same top.
func ignored(stack []*ignoreFile, path string, isDir bool) bool {
	for i := len(stack) - 1; i >= 0; i-- {
		rel, below := strings.CutPrefix(path, stack[i].base)
		if !below {
			continue
		}
		if is, known := stack[i].match(rel, isDir); known {
			return is
		}
	}
	return false
}

// wildmatch is git's wildmatch with WM_PATHNAME: * and ? and […] do not match a slash, ** between slashes matches any
// number of folders, a backslash quotes. Its time is bounded by a budget, so that no pattern can stall it; a pattern that exhausts the
// budget does not match.
func wildmatch(pattern, text string) bool {
	budget := 1 << 20
	return wild(pattern, text, true, &budget)
}

// wild matches from a place in the pattern; start says that this place is the pattern's beginning or follows a slash.
func wild(p, t string, start bool, budget *int) bool {
	for p != "" {
		if *budget--; *budget < 0 {
			return false
		}
		switch c := p[0]; c {
		case '*':
			n := 1
			for n < len(p) && p[n] == '*' {
				n++
			}
			rest := p[n:]
			if n >= 2 && start && (rest == "" || rest[0] == '/') {
				if rest == "" {
					return true
				}
				// "**/" matches no folder at all, or any number of them.
				if wild(rest[1:], t, true, budget) {
					return true
				}
				for i := 0; i < len(t); i++ {
					if t[i] == '/' && wild(rest[1:], t[i+1:], true, budget) {
						return true
					}
				}
				return false
			}
			for i := 0; ; i++ {
				if wild(rest, t[i:], false, budget) {
					return true
				}
				if i == len(t) || t[i] == '/' {
					return false
				}
			}
		case '?':
			if t == "" || t[0] == '/' {
				return false
			}
			p, t = p[1:], t[1:]
		case '[':
			if t == "" || t[0] == '/' {
				return false
			}
			in, size := bracket(p, t[0])
			if size == 0 || !in {
				return false
			}
			p, t = p[size:], t[1:]
		default:
			if c == '\\' {
				if len(p) < 2 {
					return false
				}
				p = p[1:]
				c = p[0]
			}
			if t == "" || t[0] != c {
				return false
			}
			p, t = p[1:], t[1:]
			start = c == '/'
			continue
		}
		start = false
	}
	return t == ""
}

// bracket matches c against the set at the head of p and returns the set's length, 0 when it is not closed.
func bracket(p string, c byte) (in bool, size int) {
	i := 1
	negate := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negate {
		i++
	}
	for first := true; ; first = false {
		if i >= len(p) {
			return false, 0
		}
		if p[i] == ']' && !first {
			return in != negate, i + 1
		}
		if strings.HasPrefix(p[i:], "[:") {
			if end := strings.Index(p[i+2:], ":]"); end >= 0 {
				is, known := inClass(p[i+2:i+2+end], c)
				if !known {
					return false, 0
				}
				in = in || is
				i += 2 + end + 2
				continue
			}
		}
		lo := p[i]
		if lo == '\\' {
			if i++; i >= len(p) {
				return false, 0
			}
			lo = p[i]
		}
		i++
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			if hi = p[i+1]; hi == '\\' {
				if i++; i+1 >= len(p) {
					return false, 0
				}
				hi = p[i+1]
			}
			i += 2
		}
		if lo <= c && c <= hi {
			in = true
		}
	}
}

func inClass(name string, c byte) (in, known bool) {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < 32 || c == 127, true
	case "digit":
		return digit, true
	case "graph":
		return c > 32 && c < 127, true
	case "lower":
		return lower, true
	case "print":
		return c >= 32 && c < 127, true
	case "punct":
		return c > 32 && c < 127 && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	}
	return false, false
}

package assist

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"autodev/infer/chat"
)

// Output is what a function produces.
type Output string

const (
	Prose Output = "prose" // Markdown
	Code  Output = "code"
)

// Place says where code goes.
type Place string

const (
	Replace Place = "replace" // instead of the selection
	Below   Place = "below"   // after it
	New     Place = "new"     // into a file of its own
)

// Function is one assistance function.
type Function struct {
	Name        string
	Title       string
	Output      Output
	Place       Place // of Code
	Comments    bool  // of Code: an answer that changes more than comments and documentation is refused
	MaxTokens   int
	Temperature float64
	Backend     string // "" is the configuration's choice
	Stop        []string
	body        *template.Template
	source      string // for errors
}

// Info describes a function to clients.
type Info struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Output  Output `json:"output"`
	Place   Place  `json:"place,omitempty"`
	Backend string `json:"backend"`
}

//go:embed functions/*.md
var builtin embed.FS

// maxTemplate bounds the file of a function.
const maxTemplate = 1 << 20

// Functions are known by name.
type Functions struct{ all []*Function }

// Builtin returns the functions that come with the program, and those in a folder when it is not "": one file per function, of any name that ends
// with .md. One of a built-in function's name takes its place.
func Builtin(folder string) (*Functions, error) {
	f := &Functions{}
	own, err := fs.Sub(builtin, "functions")
	if err != nil {
		return nil, err
	}
	if err := f.read(own, "built-in"); err != nil {
		return nil, err
	}
	if folder != "" {
		if err := f.read(os.DirFS(folder), folder); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(f.all, func(a, b *Function) int { return strings.Compare(a.Name, b.Name) })
	return f, nil
}

// BuiltinSource returns the file of a built-in function.
func BuiltinSource(name string) (string, error) {
	if validName.MatchString(name) {
		if b, err := builtin.ReadFile("functions/" + name + ".md"); err == nil {
			return string(b), nil
		}
	}
	return "", fmt.Errorf("%.80s: expected the name of a built-in function", name)
}

// Get returns a function; nil when there is none of the name.
func (f *Functions) Get(name string) *Function {
	for _, x := range f.all {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// All returns the functions in the order of their names.
func (f *Functions) All() []*Function { return slices.Clone(f.all) }

func (f *Functions) read(fsys fs.FS, folder string) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return fmt.Errorf("functions: %s: %w", folder, err)
	}
	here := map[string]string{}
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".md" || strings.EqualFold(e.Name(), "README.md") {
			continue
		}
		shown := path.Join(slashed(folder), e.Name())
		content, err := readLimited(fsys, e.Name())
		if err != nil {
			return fmt.Errorf("functions: %s: %w", shown, err)
		}
		fn, err := ParseFunction(shown, content)
		if err != nil {
			return err
		}
		if other, twice := here[fn.Name]; twice {
			return fmt.Errorf("%s: name: found %s, which %s has too, expected a name of its own", shown, fn.Name, other)
		}
		here[fn.Name] = shown
		f.all = append(slices.DeleteFunc(f.all, func(x *Function) bool { return x.Name == fn.Name }), fn)
	}
	return nil
}

func readLimited(fsys fs.FS, name string) (_ []byte, err error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b, err := io.ReadAll(io.LimitReader(file, maxTemplate+1))
	if err == nil && len(b) > maxTemplate {
		err = fmt.Errorf("found more than %d bytes, expected at most that", maxTemplate)
	}
	return b, err
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// ParseFunction reads the file of a function:
//
//	---
//	name: explain            # what clients call it: a-z, 0-9 and -
//	title: Explain           # what menus call it
//	output: prose            # or code
//	place: replace           # of code: replace, below or new
//	changes: comments        # of code that replaces: an answer that changes more is refused, where the language is known; may be left out
//	max_tokens: 800
//	temperature: 0.2
//	backend: local           # of the configuration; may be left out
//	stop: ["\n## "]          # texts that end an answer; may be left out
//	---
//	the message to the model, a Go text/template
//
// What templates know is Prompt. Blocks make more of a body: {{define "system"}} a system message, {{define "user"}} the message when the rest of the
// body is not, {{define "base"}} a text for models that were not tuned to follow instructions, which they go on with (for code: inside a code fence
// that the text has opened). A block's name may go on with a space and a pattern, {{define "user qwen*"}}: it is for models whose name matches, and the
// longest pattern wins.
func ParseFunction(name string, content []byte) (*Function, error) {
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	rest, ok := bytes.CutPrefix(content, []byte("---\n"))
	head, body, ok2 := bytes.Cut(rest, []byte("\n---\n"))
	if !ok || !ok2 {
		return nil, fmt.Errorf("%s: expected a head between two lines of ---", name)
	}
	var h struct {
		Name        string   `yaml:"name"`
		Title       string   `yaml:"title"`
		Output      Output   `yaml:"output"`
		Place       Place    `yaml:"place"`
		Changes     string   `yaml:"changes"`
		MaxTokens   *int     `yaml:"max_tokens"`
		Temperature float64  `yaml:"temperature"`
		Backend     string   `yaml:"backend"`
		Stop        []string `yaml:"stop"`
	}
	d := yaml.NewDecoder(bytes.NewReader(head))
	d.KnownFields(true)
	if err := d.Decode(&h); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := &Function{Name: h.Name, Title: h.Title, Output: h.Output, Place: h.Place, Comments: h.Changes == "comments", MaxTokens: 1024, Temperature: h.Temperature, Backend: h.Backend, Stop: h.Stop, source: name}
	if h.MaxTokens != nil {
		f.MaxTokens = *h.MaxTokens
	}
	if f.Title == "" {
		f.Title = f.Name
	}
	if f.Output == Code && f.Place == "" {
		f.Place = Replace
	}
	bad := func(field, found, expected string) error {
		return fmt.Errorf("%s: %s: found %s, expected %s", name, field, found, expected)
	}
	switch {
	case !validName.MatchString(f.Name):
		return nil, bad("name", fmt.Sprintf("%.80q", f.Name), "a to z, 0 to 9 and -, a letter first, at most 64")
	case f.Output != Prose && f.Output != Code:
		return nil, bad("output", fmt.Sprintf("%.80q", f.Output), "prose or code")
	case f.Output == Prose && f.Place != "":
		return nil, bad("place", fmt.Sprintf("%.80q", f.Place), "none: prose goes nowhere")
	case f.Output == Code && f.Place != Replace && f.Place != Below && f.Place != New:
		return nil, bad("place", fmt.Sprintf("%.80q", f.Place), "replace, below or new")
	case h.Changes != "" && (!f.Comments || f.Output != Code || f.Place != Replace):
		return nil, bad("changes", fmt.Sprintf("%.80q of %s", h.Changes, f.Output), "comments, of code in place of the selection, or nothing")
	case f.MaxTokens < 1 || f.MaxTokens > 1<<20:
		return nil, bad("max_tokens", fmt.Sprint(f.MaxTokens), "1 to 1048576")
	case !(f.Temperature >= 0 && f.Temperature <= 2):
		return nil, bad("temperature", fmt.Sprint(f.Temperature), "0 to 2")
	case slices.Contains(f.Stop, ""):
		return nil, bad("stop", "an empty text", "at least one character")
	}
	var err error
	if f.body, err = template.New("body").Option("missingkey=error").Funcs(template.FuncMap{"trim": strings.TrimSpace, "lower": strings.ToLower, "upper": strings.ToUpper}).Parse(string(body)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, t := range f.body.Templates() {
		block, pattern, patterned := strings.Cut(t.Name(), " ")
		if t.Name() != "body" && !slices.Contains([]string{"system", "user", "base"}, block) {
			continue // the function's own, for use in others
		}
		if _, err := path.Match(pattern, ""); patterned && err != nil {
			return nil, fmt.Errorf("%s: block %q: %w", name, t.Name(), err)
		}
	}
	// A function that cannot be rendered is a mistake to hear of now.
	sample := Prompt{Request: Request{Selection: "x", File: "f.py"}}
	messages, base, err := f.render("", sample)
	switch {
	case err != nil:
		return nil, err
	case messages[len(messages)-1].Content == "" && base == "":
		return nil, fmt.Errorf("%s: expected a message to the model below the head", name)
	}
	return f, nil
}

// block returns the block of the given name for a model, nil if there is none.
func (f *Function) block(name, model string) *template.Template {
	best, longest := f.body.Lookup(name), -1
	for _, t := range f.body.Templates() {
		block, pattern, ok := strings.Cut(t.Name(), " ")
		if !ok || block != name || len(pattern) <= longest {
			continue
		}
		// Names of models may be paths; a pattern means the last part.
		if match, _ := path.Match(strings.ToLower(pattern), strings.ToLower(path.Base(slashed(model)))); match {
			best, longest = t, len(pattern)
		}
	}
	return best
}

// render returns the messages for a model, and what one without instruction tuning goes on with ("" if the function has nothing for it).
func (f *Function) render(model string, p Prompt) (messages []chat.Message, base string, err error) {
	text := func(t *template.Template) string {
		if t == nil || err != nil {
			return ""
		}
		var b strings.Builder
		if e := t.Execute(&b, p); e != nil {
			err = fmt.Errorf("%s: %w", f.source, e)
		}
		return b.String()
	}
	user := f.block("user", model)
	if user == nil {
		user = f.body
	}
	if system := strings.TrimSpace(text(f.block("system", model))); system != "" {
		messages = append(messages, chat.Message{Role: "system", Content: system})
	}
	messages = append(messages, chat.Message{Role: "user", Content: strings.TrimSpace(text(user))})
	return messages, strings.TrimLeft(text(f.block("base", model)), "\n"), err
}

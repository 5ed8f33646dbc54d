package source

import (
	"path/filepath"
	"strings"
)

// languages maps the-stack's folder names of languages to their file extensions. Names that begin with a dot or a letter without
// dot are extensions or whole file names. Data and markup languages are listed apart, in markup.
var languages = map[string][]string{
	"ada":              {".adb", ".ads"},
	"assembly":         {".asm", ".s"},
	"awk":              {".awk"},
	"batchfile":        {".bat", ".cmd"},
	"c":                {".c", ".h"},
	"c-sharp":          {".cs", ".csx"},
	"c++":              {".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".c++", ".h++", ".ipp", ".tpp", ".inl"},
	"clojure":          {".clj", ".cljs", ".cljc", ".edn"},
	"cmake":            {".cmake", "CMakeLists.txt"},
	"coffeescript":     {".coffee"},
	"common-lisp":      {".lisp", ".lsp", ".cl", ".asd"},
	"cuda":             {".cu", ".cuh"},
	"cython":           {".pyx", ".pxd", ".pxi"},
	"d":                {".d", ".di"},
	"dart":             {".dart"},
	"dockerfile":       {".dockerfile", "Dockerfile"},
	"elixir":           {".ex", ".exs"},
	"elm":              {".elm"},
	"emacs-lisp":       {".el"},
	"erlang":           {".erl", ".hrl"},
	"f-sharp":          {".fs", ".fsi", ".fsx"},
	"fortran":          {".f", ".f77", ".f90", ".f95", ".f03", ".f08", ".for"},
	"glsl":             {".glsl", ".vert", ".frag", ".geom"},
	"go":               {".go"},
	"groovy":           {".groovy", ".gradle"},
	"haskell":          {".hs", ".hsc"},
	"hcl":              {".tf", ".hcl"},
	"java":             {".java"},
	"javascript":       {".js", ".mjs", ".cjs", ".jsx"},
	"julia":            {".jl"},
	"kotlin":           {".kt", ".kts"},
	"lua":              {".lua"},
	"makefile":         {".mk", ".mak", "Makefile", "makefile", "GNUmakefile"},
	"mathematica":      {".wl", ".nb"},
	"matlab":           {".m"},
	"nim":              {".nim"},
	"nix":              {".nix"},
	"objective-c++":    {".mm"},
	"ocaml":            {".ml", ".mli"},
	"pascal":           {".pas", ".pp", ".dpr", ".lpr"},
	"perl":             {".pl", ".pm", ".t"},
	"php":              {".php", ".phtml", ".php3", ".php4", ".php5"},
	"powershell":       {".ps1", ".psm1", ".psd1"},
	"prolog":           {".pro", ".prolog"},
	"protocol-buffer":  {".proto"},
	"python":           {".py", ".pyi", ".pyw"},
	"r":                {".r"},
	"racket":           {".rkt"},
	"ruby":             {".rb", ".rake", ".gemspec", ".ru", "Rakefile", "Gemfile"},
	"rust":             {".rs"},
	"scala":            {".scala", ".sbt"},
	"scheme":           {".scm", ".ss", ".sld"},
	"shell":            {".sh", ".bash", ".zsh", ".ksh"},
	"solidity":         {".sol"},
	"sql":              {".sql"},
	"standard-ml":      {".sml", ".sig", ".fun"},
	"swift":            {".swift"},
	"systemverilog":    {".sv", ".svh"},
	"tcl":              {".tcl"},
	"thrift":           {".thrift"},
	"typescript":       {".ts", ".tsx", ".mts", ".cts"},
	"vala":             {".vala", ".vapi"},
	"verilog":          {".v", ".vh"},
	"vhdl":             {".vhd", ".vhdl"},
	"visual-basic":     {".vb", ".bas", ".vbs"},
	"vue":              {".vue"},
	"zig":              {".zig"},
	"css":              {".css"},
	"scss":             {".scss"},
	"less":             {".less"},
	"html":             {".html", ".htm", ".xhtml"},
	"json":             {".json"},
	"jupyter-notebook": {".ipynb"},
	"markdown":         {".md", ".markdown"},
	"restructuredtext": {".rst"},
	"svg":              {".svg"},
	"tex":              {".tex", ".sty", ".cls"},
	"text":             {".txt"},
	"toml":             {".toml"},
	"xml":              {".xml", ".xsd", ".xsl", ".xslt"},
	"yaml":             {".yaml", ".yml"},
}

// markup are the languages of data and prose. A folder is not taken for source code because of them, and they are read
// from a folder only when asked for by name.
var markup = map[string]bool{
	"css": true, "scss": true, "less": true, "html": true, "json": true, "jupyter-notebook": true, "markdown": true,
	"restructuredtext": true, "svg": true, "tex": true, "text": true, "toml": true, "xml": true, "yaml": true,
}

// languageOfExtension inverts languages.
var languageOfExtension = func() map[string]string {
	m := map[string]string{}
	for lang, exts := range languages {
		for _, e := range exts {
			m[e] = lang
		}
	}
	return m
}()

// aliases maps common names to the-stack's folder names, where lower case and hyphens do not suffice.
var aliases = map[string]string{
	"c#": "c-sharp", "csharp": "c-sharp", "cs": "c-sharp", "cpp": "c++", "cplusplus": "c++", "c-plus-plus": "c++", "js": "javascript", "ts": "typescript", "py": "python", "rb": "ruby",
	"rs": "rust", "golang": "go", "f#": "f-sharp", "fsharp": "f-sharp", "bash": "shell", "sh": "shell",
	"protobuf": "protocol-buffer", "visual-basic-.net": "visual-basic", "vb": "visual-basic", "docker": "dockerfile",
}

// NormalizeLanguage returns the-stack's folder name of a language: "C#" and "csharp" give "c-sharp", "Common Lisp" gives
// "common-lisp". Unknown names come back in lower case with hyphens.
func NormalizeLanguage(name string) string {
	n := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), " ", "-")
	n = strings.ReplaceAll(n, "_", "-")
	if a, ok := aliases[n]; ok {
		return a
	}
	return n
}

// knownLanguage normalizes the name if it is a language of the table, else it returns "".
func knownLanguage(name string) string {
	n := NormalizeLanguage(name)
	if _, ok := languages[n]; ok {
		return n
	}
	return ""
}

// LanguageOf returns the language of a file by its name, or "" if it has no known one.
func LanguageOf(name string) string {
	base := filepath.Base(name)
	if l, ok := languageOfExtension[base]; ok && !strings.HasPrefix(base, ".") {
		return l
	}
	return languageOfExtension[strings.ToLower(filepath.Ext(base))]
}

func isCode(name string) bool {
	l := LanguageOf(name)
	return l != "" && !markup[l]
}

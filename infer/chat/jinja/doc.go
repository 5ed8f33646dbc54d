// Package jinja renders the templates that Hugging Face models carry for chat, and remembers of every byte of the result whether
// it came from the template or from a user.
//
//	text.go      strings with marks: which bytes are a user's
//	lex.go       template text to tokens, with white space control as transformers sets it
//	parse.go     tokens to statements
//	parse_expr.go and to expressions
//	expr.go      expressions
//	stmt.go      statements, scopes, loops, macros
//	value.go     the values of templates, their truth, order and attributes
//	operator.go  arithmetic, comparison, slices
//	method.go    the methods of strings, mappings and lists
//	filter.go    filters
//	is.go        tests
//	function.go  what templates may call
//	format.go    values as Python prints them, JSON
//
// It is the language as transformers runs it (ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks and loop controls), without
// what no chat template has use for: inheritance, imports, includes, auto-escaping. Templates come with models from strangers: they
// cannot reach files, and steps, nesting and output are bounded.
//
// The language is our own code because marks must survive every operation, and because Go's kept library for Jinja (gonja 2.8.0) renders 21 of 70
// published chat templates as jinja2 does; this package renders all of them.
//
// What must not live here: messages, tokens, or anything else that knows what a template is for.
package jinja

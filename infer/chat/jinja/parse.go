package jinja

import (
	"slices"
)

// maxDepth bounds nesting: of expressions and statements, of calls, and of values that are printed.
const maxDepth = 200

type parser struct {
	tokens []token
	pos    int
	depth  int
	loops  int // around the statement that is parsed
}

// Template is a parsed template. It is immutable and safe for concurrent use.
type Template struct{ body []stmt }

// Parse reads a template.
func Parse(src string) (t *Template, err error) {
	defer recovered(&err)
	p := &parser{tokens: lex(src)}
	t = &Template{p.body()}
	if p.peek().kind != tokEOF {
		fail(p.peek().line, "found %s, expected a tag that is open", p.peek())
	}
	return t, nil
}

// recovered turns what fail threw into an error.
func recovered(err *error) {
	switch r := recover().(type) {
	case nil:
	case *Error:
		*err = r
	default:
		panic(r)
	}
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tokEOF {
		p.pos++
	}
	return t
}

func (p *parser) is(text string) bool {
	t := p.peek()
	return (t.kind == tokOp || t.kind == tokName) && t.text == text
}

func (p *parser) accept(text string) bool {
	if p.is(text) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		fail(p.peek().line, "found %s, expected %q", p.peek(), text)
	}
}

func (p *parser) expectKind(k kind, what string) token {
	t := p.next()
	if t.kind != k {
		fail(t.line, "found %s, expected %s", t, what)
	}
	return t
}

// nest counts one level more; the function returned ends it.
func (p *parser) nest() func() {
	if p.depth++; p.depth > maxDepth {
		fail(p.peek().line, "more than %d levels deep", maxDepth)
	}
	return func() { p.depth-- }
}

// body parses statements up to a tag with one of the given names, which is left to the caller with its bracket read, or to the end.
func (p *parser) body(until ...string) []stmt {
	defer p.nest()()
	var out []stmt
	for {
		switch t := p.next(); t.kind {
		case tokEOF:
			if len(until) > 0 {
				fail(t.line, "found the end of the template, expected %q", until[len(until)-1])
			}
			return out
		case tokData:
			out = append(out, &data{Plain(t.text)})
		case tokOpen:
			out = append(out, &output{p.tuple(), t.line})
			p.expectKind(tokClose, "}}")
		case tokBegin:
			if name := p.peek(); name.kind == tokName && slices.Contains(until, name.text) {
				return out
			}
			if s := p.statement(); s != nil {
				out = append(out, s)
			}
		default:
			fail(t.line, "found %s outside a tag", t)
		}
	}
}

// end reads the name of the closing tag and its bracket.
func (p *parser) end(name string) {
	p.expect(name)
	p.close()
}

func (p *parser) close() { p.expectKind(tokEnd, "%}") }

func (p *parser) statement() stmt {
	name := p.expectKind(tokName, "the name of a tag")
	switch name.text {
	case "if":
		return p.ifStmt()
	case "for":
		return p.forStmt()
	case "set":
		return p.setStmt(name.line)
	case "macro":
		return p.macroStmt()
	case "call":
		return p.callStmt(name.line)
	case "filter":
		f := p.filters(&captured{})
		p.close()
		s := &filterStmt{f, p.body("endfilter"), name.line}
		p.end("endfilter")
		return s
	case "break", "continue":
		if p.loops == 0 {
			fail(name.line, "found %s outside a loop", name.text)
		}
		p.close()
		return jump(map[string]signal{"break": breaks, "continue": continues}[name.text])
	case "with":
		s := &withStmt{}
		for p.peek().kind == tokName {
			s.names = append(s.names, p.next().text)
			p.expect("=")
			s.values = append(s.values, p.expr())
			if !p.accept(",") {
				break
			}
		}
		p.close()
		s.body = p.body("endwith")
		p.end("endwith")
		return s
	case "generation":
		// It tells training which tokens are the assistant's.
		p.close()
		s := &withStmt{body: p.body("endgeneration")}
		p.end("endgeneration")
		return s
	}
	fail(name.line, "found the tag %q, expected one of if, for, set, macro, call, filter, with, break, continue, generation, raw", name.text)
	return nil
}

func (p *parser) ifStmt() stmt {
	s := &ifStmt{cond: p.tuple()}
	p.close()
	s.then = p.body("elif", "else", "endif")
	switch {
	case p.accept("elif"):
		s.otherwise = []stmt{p.ifStmt()}
		return s
	case p.accept("else"):
		p.close()
		s.otherwise = p.body("endif")
	}
	p.end("endif")
	return s
}

func (p *parser) forStmt() stmt {
	s := &forStmt{line: p.peek().line, names: p.targets()}
	p.expect("in")
	s.over = p.tupleOf(p.noCond)
	if p.accept("if") {
		s.cond = p.expr()
	}
	s.recursive = p.accept("recursive")
	p.close()
	p.loops++
	s.body = p.body("else", "endfor")
	p.loops--
	if p.accept("else") {
		p.close()
		s.empty = p.body("endfor")
	}
	p.end("endfor")
	return s
}

// targets reads the names that a loop assigns.
func (p *parser) targets() []string {
	paren := p.accept("(")
	names := []string{p.expectKind(tokName, "a name").text}
	for p.accept(",") && p.peek().kind == tokName {
		names = append(names, p.next().text)
	}
	if paren {
		p.expect(")")
	}
	return names
}

func (p *parser) setStmt(line int) stmt {
	s := &setStmt{line: line}
	if first := p.expectKind(tokName, "a name"); p.accept(".") {
		s.names, s.attr = []string{first.text}, p.expectKind(tokName, "a name").text
	} else {
		s.names = []string{first.text}
		for p.accept(",") && p.peek().kind == tokName {
			s.names = append(s.names, p.next().text)
		}
	}
	if p.accept("=") {
		s.value = p.tuple()
		p.close()
		return s
	}
	if p.is("|") {
		s.value = p.filters(&captured{})
	}
	p.close()
	s.body = p.body("endset")
	p.end("endset")
	return s
}

func (p *parser) macroStmt() stmt {
	m := &macro{name: p.expectKind(tokName, "the name of a macro").text}
	p.expect("(")
	m.params = p.params()
	p.close()
	loops := p.loops
	p.loops = 0
	m.body = p.body("endmacro")
	p.loops = loops
	p.end("endmacro")
	return m
}

func (p *parser) params() []param {
	var out []param
	for !p.accept(")") {
		a := param{name: p.expectKind(tokName, "the name of a parameter").text}
		if p.accept("=") {
			a.value = p.expr()
		}
		out = append(out, a)
		if !p.accept(",") {
			p.expect(")")
			break
		}
	}
	return out
}

func (p *parser) callStmt(line int) stmt {
	m := &macro{name: "caller"}
	if p.accept("(") {
		m.params = p.params()
	}
	c, ok := p.postfix(p.primary()).(*call)
	if !ok {
		fail(line, "call: expected a call")
	}
	p.close()
	m.body = p.body("endcall")
	p.end("endcall")
	return &callStmt{c, m, line}
}

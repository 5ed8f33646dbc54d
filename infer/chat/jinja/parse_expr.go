package jinja

import (
	"fmt"
	"slices"
	"strconv"
)

// Expressions, from the loosest to the tightest binding.

func (p *parser) expr() expr {
	defer p.nest()()
	e := p.or()
	for p.is("if") {
		line := p.next().line
		c := &cond{then: e, test: p.or(), line: line}
		if p.accept("else") {
			c.otherwise = p.expr()
		}
		e = c
	}
	return e
}

// noCond is an expression in a place where "if" means something else.
func (p *parser) noCond() expr { return p.or() }

// tuple reads one expression, or several with commas between them.
func (p *parser) tuple() expr { return p.tupleOf(p.expr) }

func (p *parser) tupleOf(one func() expr) expr {
	e := one()
	if !p.is(",") {
		return e
	}
	t := &listExpr{items: []expr{e}, tuple: true}
	for p.accept(",") {
		if k := p.peek(); k.kind == tokEnd || k.kind == tokClose || p.is(")") || p.is("=") {
			break
		}
		t.items = append(t.items, one())
	}
	return t
}

func (p *parser) or() expr {
	e := p.and()
	for p.is("or") {
		p.next()
		e = &logic{e, p.and(), true}
	}
	return e
}

func (p *parser) and() expr {
	e := p.not()
	for p.is("and") {
		p.next()
		e = &logic{e, p.not(), false}
	}
	return e
}

func (p *parser) not() expr {
	if p.is("not") {
		defer p.nest()()
		p.next()
		return &not{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	e := p.sum()
	var c *comparison
	for {
		t := p.peek()
		op := t.text
		switch {
		case t.kind == tokOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, op):
			p.next()
		case p.is("in"):
			p.next()
		case p.is("not") && p.tokens[p.pos+1].kind == tokName && p.tokens[p.pos+1].text == "in":
			p.next()
			p.next()
			op = "not in"
		default:
			if c == nil {
				return e
			}
			return c
		}
		if c == nil {
			c = &comparison{first: e, line: t.line}
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, p.sum())
	}
}

func (p *parser) sum() expr {
	return p.binaries(func() expr { return p.join() }, "+", "-")
}

func (p *parser) join() expr {
	e := p.product()
	if !p.is("~") {
		return e
	}
	j := &join{[]expr{e}}
	for p.accept("~") {
		j.parts = append(j.parts, p.product())
	}
	return j
}

func (p *parser) product() expr {
	return p.binaries(p.power, "*", "/", "//", "%")
}

func (p *parser) power() expr {
	return p.binaries(func() expr { return p.unary(true) }, "**")
}

func (p *parser) binaries(operand func() expr, ops ...string) expr {
	e := operand()
	for p.peek().kind == tokOp && slices.Contains(ops, p.peek().text) {
		t := p.next()
		e = &binary{t.text, e, operand(), t.line}
	}
	return e
}

func (p *parser) unary(withFilters bool) expr {
	defer p.nest()()
	var e expr
	if t := p.peek(); t.kind == tokOp && (t.text == "-" || t.text == "+") {
		p.next()
		e = &sign{t.text == "-", p.unary(false), t.line}
	} else {
		e = p.primary()
	}
	e = p.postfix(e)
	if withFilters {
		e = p.filters(e)
	}
	return e
}

func (p *parser) primary() expr {
	defer p.nest()()
	t := p.next()
	switch t.kind {
	case tokName:
		switch t.text {
		case "true", "True":
			return constant{true}
		case "false", "False":
			return constant{false}
		case "none", "None":
			return constant{nil}
		}
		return &name{t.text, t.line}
	case tokString:
		s := t.text
		for p.peek().kind == tokString {
			s += p.next().text
		}
		return constant{Plain(s)}
	case tokInt:
		i, err := strconv.ParseInt(t.text, 10, 64)
		if err != nil {
			fail(t.line, "the number %s is too large", t.text)
		}
		return constant{i}
	case tokFloat:
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil {
			fail(t.line, "the number %s is too large", t.text)
		}
		return constant{f}
	case tokOp:
		switch t.text {
		case "(":
			if p.accept(")") {
				return &listExpr{tuple: true}
			}
			e := p.tuple()
			p.expect(")")
			return e
		case "[":
			l := &listExpr{}
			for !p.accept("]") {
				l.items = append(l.items, p.expr())
				if !p.accept(",") {
					p.expect("]")
					break
				}
			}
			return l
		case "{":
			d := &dictExpr{}
			for !p.accept("}") {
				d.keys = append(d.keys, p.expr())
				p.expect(":")
				d.values = append(d.values, p.expr())
				if !p.accept(",") {
					p.expect("}")
					break
				}
			}
			return d
		}
	}
	fail(t.line, "found %s, expected an expression", t)
	return nil
}

func (p *parser) postfix(e expr) expr {
	for {
		line := p.peek().line
		switch {
		case p.accept("."):
			t := p.next()
			switch t.kind {
			case tokName:
				e = &attr{e, t.text, line}
			case tokInt:
				i, _ := strconv.ParseInt(t.text, 10, 64)
				e = &item{e, constant{i}, line}
			default:
				fail(t.line, "found %s, expected an attribute", t)
			}
		case p.accept("["):
			e = p.subscript(e, line)
		case p.accept("("):
			e = &call{fn: e, args: p.args(), line: line}
		default:
			return e
		}
	}
}

func (p *parser) subscript(e expr, line int) expr {
	var parts [3]expr
	n := 0
	for !p.is("]") {
		if p.accept(":") {
			if n++; n > 2 {
				fail(line, "a slice has more than three parts")
			}
			continue
		}
		if parts[n] != nil {
			break
		}
		parts[n] = p.tuple()
	}
	p.expect("]")
	if n > 0 {
		return &slice{e, parts, line}
	}
	if parts[0] == nil {
		fail(line, "found an empty subscript")
	}
	return &item{e, parts[0], line}
}

// args reads arguments after the opening parenthesis.
func (p *parser) args() arguments {
	var a arguments
	for !p.accept(")") {
		if t := p.peek(); t.kind == tokOp && (t.text == "*" || t.text == "**") {
			fail(t.line, "found %s before an argument: spread arguments are not supported", t.text)
		}
		if t := p.peek(); t.kind == tokName && p.tokens[p.pos+1].kind == tokOp && p.tokens[p.pos+1].text == "=" {
			p.next()
			p.next()
			a.names, a.named = append(a.names, t.text), append(a.named, p.expr())
		} else {
			a.positional = append(a.positional, p.expr())
		}
		if !p.accept(",") {
			p.expect(")")
			break
		}
	}
	return a
}

func (p *parser) dotted() string {
	s := p.expectKind(tokName, "a name").text
	for p.accept(".") {
		s = fmt.Sprintf("%s.%s", s, p.expectKind(tokName, "a name").text)
	}
	return s
}

// filters reads what follows an expression: filters, tests, calls.
func (p *parser) filters(e expr) expr {
	if _, ok := e.(*captured); ok && !p.is("|") {
		f := &filter{on: e, name: p.dotted(), line: p.peek().line}
		if p.accept("(") {
			f.args = p.args()
		}
		f.fn = filterCalled(f.name, f.line)
		e = f
	}
	for {
		line := p.peek().line
		switch {
		case p.accept("|"):
			f := &filter{on: e, name: p.dotted(), line: line}
			if p.accept("(") {
				f.args = p.args()
			}
			f.fn = filterCalled(f.name, line)
			e = f
		case p.accept("is"):
			e = p.test(e, line)
		case p.accept("("):
			e = p.postfix(&call{fn: e, args: p.args(), line: line})
		default:
			return e
		}
	}
}

func (p *parser) test(e expr, line int) expr {
	negated := p.accept("not")
	t := &test{on: e, name: p.dotted(), line: line}
	switch k := p.peek(); {
	case p.accept("("):
		t.args = p.args()
	case k.kind == tokString || k.kind == tokInt || k.kind == tokFloat || p.is("[") || p.is("{") ||
		k.kind == tokName && !slices.Contains([]string{"else", "or", "and", "is", "if", "in", "not", "recursive"}, k.text):
		t.args.positional = []expr{p.postfix(p.primary())}
	}
	t.fn = testCalled(t.name, line)
	if negated {
		return &not{t}
	}
	return t
}

package torchbin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// The values the machine works on: nil, bool, int64, float64, string, tuple, *list, *dict, global, *storage and *view.
type (
	tuple  []any
	list   struct{ items []any }
	global struct{ module, name string }
	mark   struct{}
	dict   struct{ keys, values []any }
)

func (g global) String() string { return strconv.QuoteToASCII(g.module + "." + g.name) }

// machine interprets one pickle.
type machine struct {
	b    []byte
	at   int
	out  []any
	memo map[uint32]any
	// persistent resolves a persistent id, in which torch keeps storages.
	persistent func(id any) (any, error)
	// call applies one of the allowed globals.
	call func(g global, args tuple) (any, error)
}

var errShort = errors.New("truncated")

// run interprets the pickle at the start of b and returns its value and length in bytes.
func (m *machine) run() (value any, err error) {
	m.memo = map[uint32]any{}
	for {
		start := m.at
		op, err := m.take(1)
		if err != nil {
			return nil, fmt.Errorf("pickle offset %d: %w, expected an opcode", start, err)
		}
		if op[0] == '.' {
			v, err := m.pop()
			if err != nil {
				return nil, fmt.Errorf("pickle offset %d: %w", start, err)
			}
			return v, nil
		}
		if err := m.step(op[0]); err != nil {
			return nil, fmt.Errorf("pickle offset %d: %w", start, err)
		}
	}
}

func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.take(1)
		if err == nil && v[0] > 5 {
			err = fmt.Errorf("pickle protocol %d, expected at most 5", v[0])
		}
		return err
	case 0x95: // FRAME: a hint for buffering
		_, err := m.take(8)
		return err
	case '(':
		m.push(mark{})
	case '0': // POP
		_, err := m.popAny()
		return err
	case '1': // POP_MARK
		_, err := m.toMark()
		return err
	case '2': // DUP
		v, err := m.top()
		if err != nil {
			return err
		}
		m.push(v)
	case 'N':
		m.push(nil)
	case 0x88:
		m.push(true)
	case 0x89:
		m.push(false)
	case 'J': // BININT
		v, err := m.take(4)
		if err != nil {
			return err
		}
		m.push(int64(int32(binary.LittleEndian.Uint32(v))))
	case 'K': // BININT1
		v, err := m.take(1)
		if err != nil {
			return err
		}
		m.push(int64(v[0]))
	case 'M': // BININT2
		v, err := m.take(2)
		if err != nil {
			return err
		}
		m.push(int64(binary.LittleEndian.Uint16(v)))
	case 'I': // INT, in decimal; also protocol 0's booleans
		s, err := m.line()
		if err != nil {
			return err
		}
		switch s {
		case "00":
			m.push(false)
		case "01":
			m.push(true)
		default:
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return fmt.Errorf("integer %q, expected one of 64 bits", s)
			}
			m.push(v)
		}
	case 0x8a: // LONG1
		n, err := m.take(1)
		if err != nil {
			return err
		}
		if n[0] > 8 {
			return fmt.Errorf("integer of %d bytes, expected at most 8", n[0])
		}
		v, err := m.take(int(n[0]))
		if err != nil {
			return err
		}
		var x [8]byte
		if len(v) > 0 && v[len(v)-1] >= 0x80 {
			binary.LittleEndian.PutUint64(x[:], math.MaxUint64)
		}
		copy(x[:], v)
		m.push(int64(binary.LittleEndian.Uint64(x[:])))
	case 'G': // BINFLOAT
		v, err := m.take(8)
		if err != nil {
			return err
		}
		m.push(math.Float64frombits(binary.BigEndian.Uint64(v)))
	case 'X', 'T': // BINUNICODE, BINSTRING
		return m.text(4)
	case 0x8c, 'U': // SHORT_BINUNICODE, SHORT_BINSTRING
		return m.text(1)
	case 0x8d: // BINUNICODE8
		return m.text(8)
	case ')':
		m.push(tuple{})
	case 't':
		v, err := m.toMark()
		if err != nil {
			return err
		}
		m.push(tuple(v))
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		t := make(tuple, op-0x84)
		for i := len(t) - 1; i >= 0; i-- {
			v, err := m.pop()
			if err != nil {
				return err
			}
			t[i] = v
		}
		m.push(t)
	case ']':
		m.push(&list{})
	case 'l':
		v, err := m.toMark()
		if err != nil {
			return err
		}
		m.push(&list{v})
	case 'a', 'e': // APPEND, APPENDS
		v, err := m.operands(op == 'e', 1)
		if err != nil {
			return err
		}
		l, ok := m.topIs().(*list)
		if !ok {
			return fmt.Errorf("append to %s, expected a list", kind(m.topIs()))
		}
		l.items = append(l.items, v...)
	case '}':
		m.push(&dict{})
	case 'd':
		v, err := m.toMark()
		if err != nil {
			return err
		}
		d := &dict{}
		m.push(d)
		return d.set(v)
	case 's', 'u': // SETITEM, SETITEMS
		v, err := m.operands(op == 'u', 2)
		if err != nil {
			return err
		}
		d, ok := m.topIs().(*dict)
		if !ok {
			return fmt.Errorf("set an item of %s, expected a dict", kind(m.topIs()))
		}
		return d.set(v)
	case 'q', 'h': // BINPUT, BINGET
		v, err := m.take(1)
		if err != nil {
			return err
		}
		return m.memoise(op == 'q', uint32(v[0]))
	case 'r', 'j': // LONG_BINPUT, LONG_BINGET
		v, err := m.take(4)
		if err != nil {
			return err
		}
		return m.memoise(op == 'r', binary.LittleEndian.Uint32(v))
	case 0x94: // MEMOIZE
		return m.memoise(true, uint32(len(m.memo)))
	case 'c': // GLOBAL
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		return m.global(global{module, name})
	case 0x93: // STACK_GLOBAL
		v, err := m.operands(false, 2)
		if err != nil {
			return err
		}
		module, ok1 := v[0].(string)
		name, ok2 := v[1].(string)
		if !ok1 || !ok2 {
			return fmt.Errorf("global named by %s and %s, expected two strings", kind(v[0]), kind(v[1]))
		}
		return m.global(global{module, name})
	case 'R': // REDUCE
		v, err := m.operands(false, 2)
		if err != nil {
			return err
		}
		g, ok1 := v[0].(global)
		args, ok2 := v[1].(tuple)
		if !ok1 || !ok2 {
			return fmt.Errorf("call of %s with %s, expected a global with a tuple", kind(v[0]), kind(v[1]))
		}
		r, err := m.call(g, args)
		if err != nil {
			return err
		}
		m.push(r)
	case 'b': // BUILD: torch hangs its version metadata on the state dict
		if _, err := m.pop(); err != nil {
			return err
		}
		if _, ok := m.topIs().(*dict); !ok {
			return fmt.Errorf("set the state of %s, expected an OrderedDict", kind(m.topIs()))
		}
	case 'Q': // BINPERSID
		id, err := m.pop()
		if err != nil {
			return err
		}
		v, err := m.persistent(id)
		if err != nil {
			return err
		}
		m.push(v)
	default:
		return fmt.Errorf("opcode %#02x is not allowed in a file of tensors", op)
	}
	return nil
}

// allowed lists every global a state dict of tensors may name. Storage types are in storageTypes.
func allowed(g global) bool {
	switch g {
	case global{"collections", "OrderedDict"}, global{"torch._utils", "_rebuild_tensor"}, global{"torch._utils", "_rebuild_tensor_v2"}, global{"torch._utils", "_rebuild_parameter"}:
		return true
	}
	return storageType(g) != ""
}

func (m *machine) global(g global) error {
	if !allowed(g) {
		return fmt.Errorf("global %s is not allowed: a file of tensors needs only OrderedDict and torch's tensors and storages, and nothing else is executed", g)
	}
	m.push(g)
	return nil
}

func (m *machine) memoise(put bool, i uint32) error {
	if put {
		v, err := m.top()
		if err != nil {
			return err
		}
		m.memo[i] = v
		return nil
	}
	v, ok := m.memo[i]
	if !ok {
		return fmt.Errorf("memo entry %d: missing", i)
	}
	m.push(v)
	return nil
}

func (m *machine) take(n int) ([]byte, error) {
	if n > len(m.b)-m.at {
		return nil, errShort
	}
	m.at += n
	return m.b[m.at-n : m.at], nil
}

func (m *machine) line() (string, error) {
	for i := m.at; i < len(m.b); i++ {
		if m.b[i] == '\n' {
			s := string(m.b[m.at:i])
			m.at = i + 1
			return s, nil
		}
	}
	return "", errShort
}

// text pushes a string whose length stands in the next n bytes.
func (m *machine) text(n int) error {
	v, err := m.take(n)
	if err != nil {
		return err
	}
	var x [8]byte
	copy(x[:], v)
	l := binary.LittleEndian.Uint64(x[:])
	if l > uint64(len(m.b)-m.at) {
		return fmt.Errorf("string of %d bytes: %w", l, errShort)
	}
	s, err := m.take(int(l))
	if err != nil {
		return err
	}
	m.push(string(s))
	return nil
}

func (m *machine) push(v any) { m.out = append(m.out, v) }

func (m *machine) popAny() (any, error) {
	if len(m.out) == 0 {
		return nil, errors.New("the stack is empty")
	}
	v := m.out[len(m.out)-1]
	m.out = m.out[:len(m.out)-1]
	return v, nil
}

func (m *machine) pop() (any, error) {
	v, err := m.popAny()
	if _, ok := v.(mark); ok {
		return nil, errors.New("found a mark, expected a value")
	}
	return v, err
}

func (m *machine) top() (any, error) {
	v, err := m.pop()
	if err != nil {
		return nil, err
	}
	m.push(v)
	return v, nil
}

// topIs returns the value on top of the stack, nil when there is none.
func (m *machine) topIs() any {
	if len(m.out) == 0 {
		return nil
	}
	return m.out[len(m.out)-1]
}

// toMark pops everything down to the last mark, and the mark.
func (m *machine) toMark() ([]any, error) {
	for i := len(m.out) - 1; i >= 0; i-- {
		if _, ok := m.out[i].(mark); ok {
			v := append([]any(nil), m.out[i+1:]...)
			m.out = m.out[:i]
			return v, nil
		}
	}
	return nil, errors.New("no mark on the stack")
}

// operands pops n values, or everything down to a mark.
func (m *machine) operands(marked bool, n int) ([]any, error) {
	if marked {
		return m.toMark()
	}
	v := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		var err error
		if v[i], err = m.pop(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (d *dict) set(pairs []any) error {
	if len(pairs)%2 != 0 {
		return fmt.Errorf("%d keys and values, expected an even number", len(pairs))
	}
	for i := 0; i < len(pairs); i += 2 {
		d.keys = append(d.keys, pairs[i])
		d.values = append(d.values, pairs[i+1])
	}
	return nil
}

// kind names a value's type in errors.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64:
		return "an int"
	case float64:
		return "a float"
	case string:
		return "a string"
	case tuple:
		return "a tuple"
	case *list:
		return "a list"
	case *dict:
		return "a dict"
	case *storage:
		return "a storage"
	case *view:
		return "a tensor"
	case mark:
		return "a mark"
	}
	return "a global"
}

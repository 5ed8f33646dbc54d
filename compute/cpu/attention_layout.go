package cpu

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"autodev/compute/cpu/attend"
)

// CacheFormat is how keys and values are kept for attention.
type CacheFormat uint8

const (
	// CacheF32 keeps float32. Attention over it has the bits of Kernels.Attention.
	CacheF32 CacheFormat = iota
	// CacheBF16 keeps keys and values rounded to bfloat16. Queries and probabilities are rounded too; sums are float32.
	CacheBF16
	// CacheInt8 keeps integers of −127 to 127 and, for each token and key head, one float32 scale of its key and one of its
	// value. Products are those of CacheBF16, which holds the integers exactly; the keys' scales multiply the scores, those of
	// the values the probabilities before they are rounded.
	CacheInt8
	cacheFormatEnd
)

var cacheFormatNames = [...]string{"float32", "bf16", "int8"}

func (f CacheFormat) String() string {
	if f < cacheFormatEnd {
		return cacheFormatNames[f]
	}
	return fmt.Sprintf("CacheFormat(%d)", uint8(f))
}

// ParseCacheFormat is the inverse of String.
func ParseCacheFormat(name string) (CacheFormat, error) {
	for i, n := range cacheFormatNames {
		if n == name {
			return CacheFormat(i), nil
		}
	}
	return 0, fmt.Errorf("cache format: found %q, expected one of %q", name, cacheFormatNames)
}

// keyBlock is the number of keys of one block of a sequence, counted from its start. Soft-max and the sums over values run
// block by block and are merged in order: the blocks are part of the results' definition.
const keyBlock = 256

// layout is how the keys and values of one key head in one block of keys are laid out in words of 32 bits, after each other:
//
//	keys    panels of 32 keys, [dim][32] (pairs along dim for bfloat16 and integers)
//	values  panels of 32 dimensions, [keyBlock][32] (pairs along the keys)
//	scales  int8 only: of the keys, then of the values, [keyBlock] each
//
// which are the right operands of package attend's products.
type layout struct {
	format CacheFormat
	dim    int
}

func roundUp(a, b int) int { return (a + b - 1) / b * b }

// inner is the number of words of a key along dim; columns are the padded dimensions of values.
func (l layout) inner() int {
	if l.format == CacheF32 {
		return l.dim
	}
	return (l.dim + 1) / 2
}

func (l layout) columns() int { return roundUp(l.dim, attend.Panel) }

// perWord is the number of elements in a word of the products' operands.
func (l layout) perWord() int {
	if l.format == CacheF32 {
		return 1
	}
	return 2
}

// keyWords, valueWords and words count the words of a block.
func (l layout) keyWords() int {
	if l.format == CacheInt8 {
		return keyBlock * l.inner() / 2
	}
	return keyBlock * l.inner()
}

func (l layout) valueWords() int {
	switch l.format {
	case CacheF32:
		return keyBlock * l.columns()
	case CacheBF16:
		return keyBlock * l.columns() / 2
	}
	return keyBlock * l.columns() / 4
}

func (l layout) words() int {
	n := l.keyWords() + l.valueWords()
	if l.format == CacheInt8 {
		n += 2 * keyBlock
	}
	return n
}

// keyOperands is a block as products read it.
type keyOperands struct {
	keys, values     []uint32
	keyScale, vScale []float32 // nil: 1
}

// operands returns the block's operands. Integers are widened into space, of unpacked words, as far as the keys from..to need.
func (l layout) operands(block, space []uint32, from, to int) keyOperands {
	keys, values := block[:l.keyWords()], block[l.keyWords():][:l.valueWords()]
	if l.format != CacheInt8 {
		return keyOperands{keys: keys, values: values}
	}
	scales := attend.Floats(block[l.keyWords()+l.valueWords():])
	o := keyOperands{keyScale: scales[:keyBlock], vScale: scales[keyBlock:][:keyBlock]}
	o.keys, o.values = space[:2*len(keys)], space[2*len(keys):][:2*len(values)]
	panel := l.inner() * attend.Panel
	lo, hi := from/attend.Panel*panel, (to+attend.Panel-1)/attend.Panel*panel
	attend.Widen(o.keys[lo:hi], integers(keys)[2*lo:2*hi])
	for c := 0; c < l.columns(); c += attend.Panel {
		at := c * keyBlock / 2
		lo, hi := at+from/2*attend.Panel, at+(to+1)/2*attend.Panel
		attend.Widen(o.values[lo:hi], integers(values)[2*lo:2*hi])
	}
	return o
}

// unpacked is the space that operands needs.
func (l layout) unpacked() int {
	if l.format == CacheInt8 {
		return 2 * (l.keyWords() + l.valueWords())
	}
	return 0
}

// put writes the keys and values of tokens u, u+1, … of the block, whose rows are k and v of the given stride. What an even
// last token shares with the next is cleared.
func (l layout) put(block []uint32, u, n int, k, v []float32, stride int) {
	keys, values := block[:l.keyWords()], block[l.keyWords():][:l.valueWords()]
	for n > 0 {
		if m := min(n, attend.Panel); u%attend.Panel == 0 && m >= 16 && l.format != CacheInt8 {
			packKeys(l, keys[u*l.inner():], k, stride, m)
			packValues(l, values, keyBlock, u, v, stride, m)
			u, n = u+m, n-m
			k, v = k[min(len(k), m*stride):], v[min(len(v), m*stride):]
			continue
		}
		if l.format == CacheInt8 {
			scales := attend.Floats(block[l.keyWords()+l.valueWords():])
			scales[u] = l.quantize(integers(keys)[u/attend.Panel*l.inner()*2*attend.Panel+u%attend.Panel*2:], k[:l.dim], func(d int) int { return d/2*2*attend.Panel + d%2 })
			scales[keyBlock+u] = l.quantize(integers(values)[u/2*2*attend.Panel+u%2:], v[:l.dim], func(d int) int {
				return d/attend.Panel*keyBlock*attend.Panel + d%attend.Panel*2
			})
		} else {
			l.putOne(keys, values, u, k, v)
		}
		u, n = u+1, n-1
		k, v = k[min(len(k), stride):], v[min(len(v), stride):]
	}
}

func (l layout) putOne(keys, values []uint32, u int, k, v []float32) {
	at := keys[u/attend.Panel*l.inner()*attend.Panel+u%attend.Panel:]
	if l.format == CacheF32 {
		for d, x := range attend.Words(k[:l.dim]) {
			at[d*attend.Panel] = x
		}
		for c := 0; c < l.dim; c += attend.Panel {
			n := min(attend.Panel, l.dim-c)
			copy(values[c*keyBlock+u*attend.Panel:][:n], attend.Words(v[c:][:n]))
		}
		return
	}
	memory := roundings.Get().(*rounding)
	defer roundings.Put(memory)
	pairs := memory[:attend.Panel/2]
	for c := 0; c < l.dim; c += attend.Panel {
		n := min(attend.Panel, l.dim-c)
		attend.Round(pairs[:(n+1)/2], k[c:][:n])
		for i, w := range pairs[:(n+1)/2] {
			at[(c/2+i)*attend.Panel] = w
		}
		attend.Round(pairs[:(n+1)/2], v[c:][:n])
		// The upper halves are written alone: the lower may be read meanwhile (Cache.CopyTokens).
		to := values[c*keyBlock/2+u/2*attend.Panel:][:n]
		if u%2 == 1 {
			upper := halves(to)
			for i := range to {
				upper[2*i+1] = uint16(pairs[i/2] >> (i % 2 * 16))
			}
			continue
		}
		for i := range to {
			to[i] = pairs[i/2] >> (i % 2 * 16) & 0xffff
		}
	}
}

// copyTokens copies the first n tokens of a block and reads nothing of others.
func (l layout) copyTokens(to, from []uint32, n int) {
	size := map[CacheFormat]int{CacheF32: 4, CacheBF16: 2, CacheInt8: 1}[l.format] // of an element in bytes
	unit := size * l.perWord()
	panel, line := l.inner()*attend.Panel*unit, attend.Panel*unit
	dst, src := integers(to[:l.keyWords()]), integers(from[:l.keyWords()])
	whole := n / attend.Panel * panel
	copy(dst[:whole], src[:whole])
	if rest := n % attend.Panel * unit; rest > 0 {
		for at := whole; at < whole+panel; at += line {
			copy(dst[at:][:rest], src[at:][:rest])
		}
	}
	dst, src = integers(to[l.keyWords():][:l.valueWords()]), integers(from[l.keyWords():][:l.valueWords()])
	for c := 0; c < len(dst); c += keyBlock / l.perWord() * line {
		whole := n / l.perWord() * line
		copy(dst[c:][:whole], src[c:][:whole])
		if n%l.perWord() == 1 {
			for i := c + whole; i < c+whole+line; i += unit {
				copy(dst[i:][:size], src[i:][:size])
				clear(dst[i+size:][:size])
			}
		}
	}
	if l.format == CacheInt8 {
		dst, src := to[l.keyWords()+l.valueWords():], from[l.keyWords()+l.valueWords():]
		copy(dst[:n], src[:n])
		copy(dst[keyBlock:][:n], src[keyBlock:][:n])
	}
}

// quantize stores x as integers, element d at the place at(d) of dst, and returns their scale. Zeros, and numbers too small
// for float32 to hold their scale's inverse, become zeros.
func (l layout) quantize(dst []int8, x []float32, at func(d int) int) float32 {
	largest := float32(0)
	for _, v := range x {
		if a := math.Float32frombits(math.Float32bits(v) &^ (1 << 31)); !(a <= largest) {
			largest = a // NaN too
		}
	}
	inverse := 127 / largest
	if largest < 1e-30 {
		largest, inverse = 0, 0
	}
	for d, v := range x {
		const toInteger = 3 << 22 // adding it leaves no bits for fractions: rounding to nearest even
		dst[at(d)] = int8(float32(float32(v*inverse)+toInteger) - toInteger)
	}
	return largest / 127
}

// integers and halves view words as what they hold.
func integers(x []uint32) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

func halves(x []uint32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// rounding is memory for rows rounded before they are laid out, roundWidth words of each at a time.
type rounding [attend.Panel * roundWidth]uint32

const roundWidth = 128

// roundings keeps those that are not in use: on the stack they would not stay.
var roundings = sync.Pool{New: func() any { return new(rounding) }}

// zeroPanel stands in for a row that is not there.
var zeroPanel [attend.Panel]float32

// packKeys writes n ≤ 32 rows as one panel, panel[x·32+r] being word x of row r.
func packKeys(l layout, panel []uint32, rows []float32, stride, n int) {
	if l.format == CacheF32 {
		attend.Transpose(panel, attend.Words(rows), stride, n, l.dim)
		return
	}
	space := roundings.Get().(*rounding)
	defer roundings.Put(space)
	for x := 0; x < l.inner(); x += roundWidth {
		m := min(roundWidth, l.inner()-x)
		for r := range n {
			attend.Round(space[r*roundWidth:][:m], rows[r*stride+2*x:][:min(2*m, l.dim-2*x)])
		}
		attend.Transpose(panel[x*attend.Panel:], space[:], roundWidth, n, m)
	}
}

// packValues writes n rows from row u on of panels of the given number of rows; u is even unless elements are words.
func packValues(l layout, panels []uint32, span, u int, rows []float32, stride, n int) {
	for c := 0; c < l.dim; c += attend.Panel {
		m := min(attend.Panel, l.dim-c)
		if l.format == CacheF32 {
			for r := range n {
				copy(panels[c*span+(u+r)*attend.Panel:][:m], attend.Words(rows[r*stride+c:][:m]))
			}
			continue
		}
		for r := 0; r < n; r += 2 {
			upper := zeroPanel[:m]
			if r+1 < n {
				upper = rows[(r+1)*stride+c:][:m]
			}
			attend.Interleave(panels[c*span/2+(u+r)/2*attend.Panel:][:m], rows[r*stride+c:][:m], upper)
		}
	}
}

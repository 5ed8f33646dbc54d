package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// class is what the splitting patterns see of a character.
type class uint8

const (
	other  class = iota // everything else, bytes that are not UTF-8 included
	letter              // \p{L}
	number              // \p{N}
	space               // \s, the property White_Space
	multi               // only in asciiClass: first byte of a character that needs the Unicode tables
)

var asciiClass = func() (t [256]class) {
	for c := range t {
		switch {
		case c >= utf8.RuneSelf:
			t[c] = multi
		case 'a' <= c|0x20 && c|0x20 <= 'z':
			t[c] = letter
		case '0' <= c && c <= '9':
			t[c] = number
		case c == ' ', '\t' <= c && c <= '\r':
			t[c] = space
		}
	}
	return t
}()

// classAt returns the class and the length in bytes of the character of s at i, which must be inside s.
func classAt(s string, i int) (class, int) {
	if k := asciiClass[s[i]]; k != multi {
		return k, 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return runeClass(r), n
}

func runeClass(r rune) class {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	case r >= 0x1C89 && unicode.Is(lettersSince15, r):
		return letter
	case r >= 0x10D40 && unicode.Is(numbersSince15, r):
		return number
	}
	return other
}

// The tables of Go 1.26 are those of Unicode 15.0. The Hugging Face tokenizers package matches patterns by Unicode 16
// and recognises digits for its Digits step by Unicode 17. These are the characters in between;
// TestClassesEqualHuggingFace compares every code point.
var (
	lettersSince15 = &unicode.RangeTable{
		R16: []unicode.Range16{
			{Lo: 0x1C89, Hi: 0x1C8A, Stride: 1}, {Lo: 0xA7CB, Hi: 0xA7CD, Stride: 1}, {Lo: 0xA7DA, Hi: 0xA7DC, Stride: 1},
		},
		R32: []unicode.Range32{
			{Lo: 0x105C0, Hi: 0x105F3, Stride: 1}, {Lo: 0x10D4A, Hi: 0x10D65, Stride: 1}, {Lo: 0x10D6F, Hi: 0x10D85, Stride: 1},
			{Lo: 0x10EC2, Hi: 0x10EC4, Stride: 1}, {Lo: 0x11380, Hi: 0x11389, Stride: 1}, {Lo: 0x1138B, Hi: 0x1138B, Stride: 1},
			{Lo: 0x1138E, Hi: 0x1138E, Stride: 1}, {Lo: 0x11390, Hi: 0x113B5, Stride: 1}, {Lo: 0x113B7, Hi: 0x113B7, Stride: 1},
			{Lo: 0x113D1, Hi: 0x113D1, Stride: 1}, {Lo: 0x113D3, Hi: 0x113D3, Stride: 1}, {Lo: 0x11BC0, Hi: 0x11BE0, Stride: 1},
			{Lo: 0x13460, Hi: 0x143FA, Stride: 1}, {Lo: 0x16100, Hi: 0x1611D, Stride: 1}, {Lo: 0x16D40, Hi: 0x16D6C, Stride: 1},
			{Lo: 0x18CFF, Hi: 0x18CFF, Stride: 1}, {Lo: 0x1E5D0, Hi: 0x1E5ED, Stride: 1}, {Lo: 0x1E5F0, Hi: 0x1E5F0, Stride: 1},
			{Lo: 0x2EBF0, Hi: 0x2EE5D, Stride: 1},
		},
	}
	numbersSince15 = &unicode.RangeTable{R32: []unicode.Range32{
		{Lo: 0x10D40, Hi: 0x10D49, Stride: 1}, {Lo: 0x116D0, Hi: 0x116E3, Stride: 1}, {Lo: 0x11BF0, Hi: 0x11BF9, Stride: 1},
		{Lo: 0x16130, Hi: 0x16139, Stride: 1}, {Lo: 0x16D70, Hi: 0x16D79, Stride: 1}, {Lo: 0x1CCF0, Hi: 0x1CCF9, Stride: 1},
		{Lo: 0x1E5F1, Hi: 0x1E5FA, Stride: 1},
	}}
	digitsSince16 = &unicode.RangeTable{R32: []unicode.Range32{
		{Lo: 0x11DE0, Hi: 0x11DE9, Stride: 1}, {Lo: 0x16FF4, Hi: 0x16FF6, Stride: 1},
	}}
)

// numericAt returns the length of the character of s at i when the Digits step counts it as a digit, else 0.
func numericAt(s string, i int) int {
	if c := s[i]; c < utf8.RuneSelf {
		if asciiClass[c] == number {
			return 1
		}
		return 0
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if runeClass(r) == number || r >= 0x11DE0 && unicode.Is(digitsSince16, r) {
		return n
	}
	return 0
}

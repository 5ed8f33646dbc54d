package tokenizer

// The byte-level alphabet of GPT-2 writes every byte as one printable character, so that vocabulary files are text:
// printable Latin-1 bytes stand for themselves, the other 68 are U+0100, U+0101, … in ascending order of the byte.

// byteRune returns the character that stands for b in vocabulary files.
func byteRune(b byte) rune { return byteRunes[b] }

// runeByte returns the byte that r stands for in vocabulary files.
func runeByte(r rune) (byte, bool) {
	switch {
	case r < 0 || r >= 0x100+68:
		return 0, false
	case r < 0x100:
		return byte(r), byteRunes[r] == r
	}
	return shiftedBytes[r-0x100], true
}

var byteRunes, shiftedBytes = byteAlphabet()

func byteAlphabet() (runes [256]rune, shifted [68]byte) {
	n := 0
	for b := range 256 {
		switch {
		case b > ' ' && b < 0x7F, b >= 0xA1 && b != 0xAD:
			runes[b] = rune(b)
		default:
			runes[b] = rune(0x100 + n)
			shifted[n] = byte(b)
			n++
		}
	}
	return runes, shifted
}

// symbolBytes appends the bytes that the vocabulary spelling s stands for; ok is false when s holds a character
// outside the byte-level alphabet.
func symbolBytes(dst []byte, s string) (_ []byte, ok bool) {
	start := len(dst)
	for _, r := range s {
		b, ok := runeByte(r)
		if !ok {
			return dst[:start], false
		}
		dst = append(dst, b)
	}
	return dst, true
}

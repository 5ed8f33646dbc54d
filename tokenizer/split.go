package tokenizer

import "strings"

// pattern is a word-splitting regular expression that this package knows by heart. Regular-expression engines do such
// a pattern at a tenth of the speed (its look-ahead rules out Go's own), so each one is written out by hand.
type pattern uint8

const (
	patternGPT2   pattern = iota // GPT-2, SantaCoder, StarCoder, StarCoder2
	patternQwen                  // Qwen2, Qwen2.5-Coder, Qwen3: one digit per word
	patternLlama3                // Llama 3: up to three digits per word
)

// regexes holds each pattern as tokenizer.json files spell it.
var regexes = [...]string{
	patternGPT2:   `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
	patternQwen:   `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
	patternLlama3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
}

// digitMode is the Digits step that runs before patternGPT2 in the StarCoder family. It cuts the text at digits; the
// pattern then sees each part as a text of its own, so a digit ends a word as the end of the text does.
type digitMode uint8

const (
	digitsJoined     digitMode = iota // no Digits step
	digitsIndividual                  // every digit is a word
	digitsContiguous                  // every run of digits is a word
)

// splitter cuts a text into words. Time is linear in the length of the text.
type splitter struct {
	pattern pattern
	digits  digitMode
}

// next returns the end of the word of s that starts at i, which must be inside s.
func (p splitter) next(s string, i int) int {
	if p.pattern == patternGPT2 {
		return nextGPT2(s, i, p.digits)
	}
	return nextQwen(s, i, p.pattern == patternLlama3)
}

func nextGPT2(s string, i int, digits digitMode) int {
	start := i
	if s[i] == '\'' {
		if n := contraction(s[i:]); n > 0 {
			return i + n
		}
	}
	if digits != digitsJoined {
		if n := numericAt(s, i); n > 0 {
			for i += n; digits == digitsContiguous && i < len(s); i += n {
				if n = numericAt(s, i); n == 0 {
					break
				}
			}
			return i
		}
	}
	k, n := classAt(s, i)
	if s[i] == ' ' && i+1 < len(s) {
		if k1, n1 := classAt(s, i+1); k1 != space && (digits == digitsJoined || numericAt(s, i+1) == 0) {
			k, n, i = k1, n1, i+1
		}
	}
	if k != space {
		i = runEnd(s, i+n, k)
		if digits != digitsJoined && k == other {
			// Only the Digits step knows the newest digits; to the pattern they are not numbers and would join.
			return cutAtNewDigit(s, start, i)
		}
		return i
	}
	last := start
	for i = start; i < len(s); i += n {
		if k, n = classAt(s, i); k != space {
			break
		}
		last = i
	}
	// \s+(?!\S): white space before a word leaves its last character to the word.
	if i < len(s) && last > start && (digits == digitsJoined || numericAt(s, i) == 0) {
		return last
	}
	return i
}

// runEnd returns the end of the run of characters of class k that continues at i.
func runEnd(s string, i int, k class) int {
	for i < len(s) {
		c := asciiClass[s[i]]
		n := 1
		if c == multi {
			c, n = classAt(s, i)
		}
		if c != k {
			break
		}
		i += n
	}
	return i
}

func cutAtNewDigit(s string, start, end int) int {
	for i := start + 1; i < end; i++ {
		if s[i] >= 0xF0 && numericAt(s, i) > 0 {
			return i
		}
	}
	return end
}

// contraction returns the length of the English contraction ('s, 'll, …) at the start of s, or 0.
func contraction(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v', 'l':
		if len(s) > 2 && (s[1:3] == "re" || s[1:3] == "ve" || s[1:3] == "ll") {
			return 3
		}
	}
	return 0
}

// contractionFold is contraction with case ignored; the long s (U+017F) folds to s.
func contractionFold(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v', 'l':
		if len(s) > 2 {
			switch string([]byte{s[1] | 0x20, s[2] | 0x20}) {
			case "re", "ve", "ll":
				return 3
			}
		}
	}
	if strings.HasPrefix(s[1:], "ſ") {
		return 1 + len("ſ")
	}
	return 0
}

func nextQwen(s string, i int, threeDigits bool) int {
	start := i
	if s[i] == '\'' {
		if n := contractionFold(s[i:]); n > 0 {
			return i + n
		}
	}
	k, n := classAt(s, i)
	switch {
	case k == letter:
		return runEnd(s, i+n, letter)
	case k == number:
		i += n
		for limit := 2; threeDigits && limit > 0 && i < len(s); limit-- {
			if k, n = classAt(s, i); k != number {
				break
			}
			i += n
		}
		return i
	}
	if c := s[i]; c != '\n' && c != '\r' && i+n < len(s) {
		// [^\r\n\p{L}\p{N}]?\p{L}+
		k1, n1 := classAt(s, i+n)
		if k1 == letter {
			return runEnd(s, i+n+n1, letter)
		}
		if c == ' ' && k1 == other {
			k, n, i = other, n1, i+1
		}
	}
	if k == other {
		i = runEnd(s, i+n, other)
		for i < len(s) && (s[i] == '\n' || s[i] == '\r') {
			i++
		}
		return i
	}
	last, newline := start, -1
	for i = start; i < len(s); i += n {
		if k, n = classAt(s, i); k != space {
			break
		}
		if s[i] == '\n' || s[i] == '\r' {
			newline = i
		}
		last = i
	}
	switch {
	case newline >= 0: // \s*[\r\n]+ gives back what follows the last line break
		return newline + 1
	case i < len(s) && last > start: // \s+(?!\S)
		return last
	}
	return i
}

package tokenizer

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// mixedVocabulary has bytes only, and added tokens of every kind.
func mixedVocabulary(t testing.TB, normalizer string) *Tokenizer {
	t.Helper()
	var vocab strings.Builder
	for b := range 256 {
		if b > 0 {
			vocab.WriteByte(',')
		}
		name := string(byteRune(byte(b)))
		if name == `"` || name == `\` {
			name = `\` + name
		}
		vocab.WriteString(`"` + name + `":` + string(FormatIDs(nil, []int32{int32(b)})))
	}
	added := `{"id":300,"content":"<a>","special":true,"normalized":false},{"id":301,"content":"<a>>","special":true,"normalized":false},` +
		`{"id":302,"content":"<r>","special":true,"rstrip":true,"normalized":false},{"id":303,"content":"<l>","special":true,"lstrip":true,"normalized":false},` +
		`{"id":304,"content":"<n\u00e9>","special":false,"normalized":true}`
	tok, err := Parse([]byte(`{"model":{"type":"BPE","vocab":{`+vocab.String()+`},"merges":[]},"added_tokens":[`+added+`],"normalizer":`+normalizer+
		`,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":"ByteLevel"}}`), "mixed")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestEncodeMixed(t *testing.T) {
	tok := mixedVocabulary(t, `{"type":"NFC"}`)
	cases := []struct {
		name string
		text string // user text between ‹ and ›
		want []int32
	}{
		{"template", "<a>x", []int32{300, 'x'}},
		{"user", "‹<a>›x", []int32{'<', 'a', '>', 'x'}},
		{"completed by the user", "<a‹>›", []int32{'<', 'a', '>'}},
		{"completed by the template", "‹<a›>", []int32{'<', 'a', '>'}},
		{"of two users", "‹<a››‹>›", []int32{'<', 'a', '>'}},
		{"a longer token would need the user's byte", "<a>‹>›", []int32{300, '>'}},
		{"after user text", "‹<›<a>", []int32{'<', 300}},
		{"takes a user's white space", "<r>‹ \n›x", []int32{302, 'x'}},
		{"takes a user's white space on the left", "‹x ›<l>", []int32{'x', 303}},
		{"normalised", "<né><ne\u0301>", []int32{304, 304}},
		{"normalised, of a user", "‹<ne\u0301>›<ne\u0301>", append(tok.Encode("<né>"), 304)},
	}
	for _, c := range cases {
		text, user := marked(c.text)
		if got := decodeIDs(tok, tok.EncodeMixed(text, user)); !slices.Equal(got, decodeIDs(tok, c.want)) {
			t.Errorf("%s: found %q, expected %q", c.name, got, decodeIDs(tok, c.want))
		}
	}
}

// decodeIDs spells tokens out, so that byte tokens may be written as characters.
func decodeIDs(tok *Tokenizer, ids []int32) []string {
	var out []string
	for _, id := range ids {
		text, _ := tok.Token(id)
		out = append(out, text)
	}
	return out
}

func marked(s string) (string, []Range) {
	var b strings.Builder
	var user []Range
	for _, r := range s {
		switch r {
		case '‹':
			user = append(user, Range{From: b.Len()})
		case '›':
			user[len(user)-1].To = b.Len()
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), user
}

// Without marks, and with marks on text that has no token, the ids are EncodeSpecial's.
func TestEncodeMixedEqualsEncodeSpecial(t *testing.T) {
	toks := []*Tokenizer{mixedVocabulary(t, `{"type":"NFC"}`), mixedVocabulary(t, `null`)}
	pieces := []string{"<a>", "<a>>", "<r>", "<l>", "<né>", "<ne\u0301>", "<", ">", " ", "\n", "x", "é", "\u0301"}
	rapid.Check(t, func(t *rapid.T) {
		tok := toks[rapid.IntRange(0, 1).Draw(t, "tokenizer")]
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom(pieces)).Draw(t, "pieces"), "")
		if got, want := tok.EncodeMixed(text, nil), tok.EncodeSpecial(text); !slices.Equal(got, want) {
			t.Fatalf("%q: found %v, expected %v", text, got, want)
		}
		plain := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"x", " ", "y\n", "é"})).Draw(t, "plain"), "")
		at := len("<a>")
		if got, want := tok.EncodeMixed("<a>"+plain+"<r>", []Range{{at, at + len(plain)}}), tok.EncodeSpecial("<a>"+plain+"<r>"); !slices.Equal(got, want) {
			t.Fatalf("%q: found %v, expected %v", plain, got, want)
		}
	})
}

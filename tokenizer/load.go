package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"autodev/internal/sizedfile"
)

// maxID bounds the ids of a file, and with them the memory that a hostile one can ask for.
const maxID = 1<<22 - 1

// Limits of files in bytes: the largest vocabularies in use take a tenth of them.
const (
	maxFile      = 256 << 20
	maxCompanion = 32 << 20
)

// maxNesting bounds Sequences inside Sequences.
const maxNesting = 4

// Load reads a vocabulary: a tokenizer.json, or a folder that holds tokenizer.json or else vocab.json and merges.txt.
// The files special_tokens_map.json and tokenizer_config.json beside them name BOS, EOS, PAD and UNK.
//
// vocab.json and merges.txt do not say how text is split. Load takes the pattern of GPT-2, or Qwen's when
// tokenizer_config.json names the class Qwen2Tokenizer, and adds the Digits step of the StarCoder family when no merge
// involves a digit, as only training with that step leaves it. Added tokens are those that the two other files name,
// and the well-known control tokens.
func Load(name string) (*Tokenizer, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", name, err)
	}
	dir, base := filepath.Split(abs)
	if base == "" {
		return nil, fmt.Errorf("tokenizer %s: expected a folder or a tokenizer.json", name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", name, sizedfile.Cause(err))
	}
	if info.IsDir() {
		return load(os.DirFS(abs), ".", name)
	}
	return load(os.DirFS(dir), base, name)
}

// LoadFS is Load for a file or folder of fsys, such as an embedded model.
func LoadFS(fsys fs.FS, name string) (*Tokenizer, error) { return load(fsys, path.Clean(name), name) }

// Parse reads the content of a tokenizer.json; name stands for it in errors.
func Parse(tokenizerJSON []byte, name string) (*Tokenizer, error) {
	t, err := parse(tokenizerJSON)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func load(fsys fs.FS, name, shown string) (*Tokenizer, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", shown, sizedfile.Cause(err))
	}
	dir, in := path.Dir(name), path.Dir(shown)
	file := path.Base(name)
	if info.IsDir() {
		dir, in, file = name, shown, "tokenizer.json"
	}
	side, err := readCompanions(fsys, dir, in)
	if err != nil {
		return nil, err
	}
	content, err := sizedfile.ReadFS(fsys, path.Join(dir, file), path.Join(in, file), maxFile)
	var t *Tokenizer
	switch {
	case err == nil:
		t, err = Parse(content, path.Join(in, file))
	case info.IsDir() && errors.Is(err, fs.ErrNotExist):
		t, err = loadMerges(fsys, dir, in, side)
	}
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name string
		id   *int32
	}{{side.bos, &t.bos}, {side.eos, &t.eos}, {side.pad, &t.pad}, {side.unk, &t.unk}} {
		if id, ok := t.ids[c.name]; ok && c.name != "" {
			*c.id = id
		}
	}
	return t, nil
}

// tokenizerFile is tokenizer.json. truncation and padding belong to a caller of the Python package and are not read.
type tokenizerFile struct {
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         *modelFile      `json:"model"`
}

type modelFile struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int64 `json:"vocab"`
	Merges                  json.RawMessage  `json:"merges"`
}

func parse(content []byte) (*Tokenizer, error) {
	var f tokenizerFile
	// Only the type of another model is certain to decode.
	var kind struct {
		Model struct {
			Type *string `json:"type"`
		} `json:"model"`
	}
	if err := json.Unmarshal(content, &f); err != nil {
		if json.Unmarshal(content, &kind) == nil && kind.Model.Type != nil && *kind.Model.Type != "BPE" {
			return nil, fmt.Errorf("model.type: found %q, expected \"BPE\"", *kind.Model.Type)
		}
		return nil, jsonError(content, err)
	}
	m := f.Model
	switch {
	case m == nil:
		return nil, errors.New("model: missing")
	case m.Type != "BPE" && m.Type != "":
		return nil, fmt.Errorf("model.type: found %q, expected \"BPE\"", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, fmt.Errorf("model.dropout: found %v, expected none (encoding would be random)", *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return nil, fmt.Errorf("model.continuing_subword_prefix: found %q, expected none", *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return nil, fmt.Errorf("model.end_of_word_suffix: found %q, expected none", *m.EndOfWordSuffix)
	case m.ByteFallback:
		return nil, errors.New("model.byte_fallback: found true, expected false (a byte-level vocabulary)")
	}
	t := &Tokenizer{ignoreMerges: m.IgnoreMerges}
	var err error
	if t.nfc, err = readNormalizer(f.Normalizer); err != nil {
		return nil, err
	}
	if t.words, err = readPreTokenizer(f.PreTokenizer); err != nil {
		return nil, err
	}
	if err := checkPostProcessor(f.PostProcessor, "post_processor", 0); err != nil {
		return nil, err
	}
	if err := checkDecoder(f.Decoder); err != nil {
		return nil, err
	}
	merges, err := readMerges(m.Merges)
	if err != nil {
		return nil, err
	}
	if err := t.assemble(m.Vocab, merges, f.AddedTokens); err != nil {
		return nil, err
	}
	if t.lacking && m.UnkToken != nil {
		return nil, fmt.Errorf("model.unk_token: found %q with a vocabulary that lacks bytes, expected null", *m.UnkToken)
	}
	return t, nil
}

// jsonError adds the line to a syntax error and the field to a type error.
func jsonError(content []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(content[:min(int(syntax.Offset), len(content))], []byte("\n"))
		return fmt.Errorf("line %d, byte %d: %w", line, syntax.Offset, err)
	}
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return fmt.Errorf("%s: found %s, expected %s", typ.Field, typ.Value, typ.Type)
	}
	return err
}

// step is one element of a normalizer, pre_tokenizer, post_processor or decoder.
type step struct {
	Type             string            `json:"type"`
	Normalizers      []json.RawMessage `json:"normalizers"`
	PreTokenizers    []json.RawMessage `json:"pretokenizers"`
	Processors       []json.RawMessage `json:"processors"`
	Decoders         []json.RawMessage `json:"decoders"`
	AddPrefixSpace   bool              `json:"add_prefix_space"`
	UseRegex         *bool             `json:"use_regex"`
	IndividualDigits bool              `json:"individual_digits"`
	Behavior         string            `json:"behavior"`
	Invert           bool              `json:"invert"`
	Pattern          json.RawMessage   `json:"pattern"`
}

func readStep(raw json.RawMessage, field string) (*step, error) {
	if absent(raw) {
		return nil, nil
	}
	var s step
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, jsonError(raw, err))
	}
	return &s, nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// flatten reads a step and, for a Sequence, the steps in it. fields names each for errors.
func flatten(raw json.RawMessage, field string, inner func(*step) []json.RawMessage, key string, depth int) (steps []*step, fields []string, err error) {
	s, err := readStep(raw, field)
	if err != nil || s == nil {
		return nil, nil, err
	}
	if s.Type != "Sequence" {
		return []*step{s}, []string{field}, nil
	}
	if depth == maxNesting {
		return nil, nil, fmt.Errorf("%s: Sequences nested more than %d deep", field, maxNesting)
	}
	for i, raw := range inner(s) {
		ss, ff, err := flatten(raw, fmt.Sprintf("%s.%s[%d]", field, key, i), inner, key, depth+1)
		if err != nil {
			return nil, nil, err
		}
		steps, fields = append(steps, ss...), append(fields, ff...)
	}
	return steps, fields, nil
}

func readNormalizer(raw json.RawMessage) (nfc bool, err error) {
	steps, fields, err := flatten(raw, "normalizer", func(s *step) []json.RawMessage { return s.Normalizers }, "normalizers", 0)
	for i, s := range steps {
		if s.Type != "NFC" {
			return false, fmt.Errorf("%s.type: found %q, expected \"NFC\" or no normalizer", fields[i], s.Type)
		}
		nfc = true
	}
	return nfc, err
}

func readPreTokenizer(raw json.RawMessage) (words splitter, err error) {
	steps, fields, err := flatten(raw, "pre_tokenizer", func(s *step) []json.RawMessage { return s.PreTokenizers }, "pretokenizers", 0)
	if err != nil {
		return words, err
	}
	if len(steps) == 0 || steps[len(steps)-1].Type != "ByteLevel" {
		found := "none"
		if len(steps) > 0 {
			found = fmt.Sprintf("%q", steps[len(steps)-1].Type)
		}
		return words, fmt.Errorf("pre_tokenizer: found %s, expected \"ByteLevel\" or a Sequence that ends with it", found)
	}
	split := false
	for i, s := range steps {
		field := fields[i]
		last := i == len(steps)-1
		switch {
		case s.Type == "Digits" && i == 0 && !last:
			words.digits = digitsContiguous
			if s.IndividualDigits {
				words.digits = digitsIndividual
			}
		case s.Type == "Split" && !last && !split:
			split = true
			if words.pattern, err = readPattern(s, field); err != nil {
				return words, err
			}
			if words.digits != digitsJoined && words.pattern != patternGPT2 {
				return words, fmt.Errorf("%s: found this pattern after a Digits step, expected it alone", field)
			}
		case s.Type == "ByteLevel" && last:
			useRegex := s.UseRegex == nil || *s.UseRegex
			switch {
			case s.AddPrefixSpace:
				return words, fmt.Errorf("%s.add_prefix_space: found true, expected false", field)
			case split && useRegex:
				return words, fmt.Errorf("%s.use_regex: found true after a Split, expected false", field)
			case !split && !useRegex:
				return words, fmt.Errorf("%s.use_regex: found false without a Split before it, expected true", field)
			}
		default:
			return words, fmt.Errorf("%s.type: found %q, expected an optional Digits, an optional Split, then ByteLevel", field, s.Type)
		}
	}
	return words, nil
}

func readPattern(s *step, field string) (pattern, error) {
	var p struct {
		Regex  *string
		String *string
	}
	if err := json.Unmarshal(s.Pattern, &p); err != nil || p.Regex == nil {
		return 0, fmt.Errorf("%s.pattern: found %s, expected {\"Regex\": …}", field, s.Pattern)
	}
	if s.Behavior != "Isolated" || s.Invert {
		return 0, fmt.Errorf("%s: found behavior %q, invert %v; expected \"Isolated\", false", field, s.Behavior, s.Invert)
	}
	i := slices.Index(regexes[:], *p.Regex)
	if i < 0 {
		return 0, fmt.Errorf("%s.pattern.Regex: found %q, expected the pattern of GPT-2, Qwen2 or Llama 3", field, *p.Regex)
	}
	return pattern(i), nil
}

// checkPostProcessor accepts what adds nothing to a text encoded without special tokens, which is all Encode does.
func checkPostProcessor(raw json.RawMessage, field string, depth int) error {
	steps, fields, err := flatten(raw, field, func(s *step) []json.RawMessage { return s.Processors }, "processors", depth)
	for i, s := range steps {
		if s.Type != "ByteLevel" && s.Type != "TemplateProcessing" {
			return fmt.Errorf("%s.type: found %q, expected \"ByteLevel\" or \"TemplateProcessing\"", fields[i], s.Type)
		}
	}
	return err
}

func checkDecoder(raw json.RawMessage) error {
	steps, fields, err := flatten(raw, "decoder", func(s *step) []json.RawMessage { return s.Decoders }, "decoders", 0)
	for i, s := range steps {
		if s.Type != "ByteLevel" {
			return fmt.Errorf("%s.type: found %q, expected \"ByteLevel\"", fields[i], s.Type)
		}
	}
	return err
}

// readMerges reads merges written as "a b" or as ["a", "b"].
func readMerges(raw json.RawMessage) ([][2]string, error) {
	if absent(raw) {
		return nil, errors.New("model.merges: missing")
	}
	var lines []string
	if json.Unmarshal(raw, &lines) == nil {
		merges := make([][2]string, len(lines))
		for i, line := range lines {
			m, err := splitMerge(line)
			if err != nil {
				return nil, fmt.Errorf("model.merges[%d]: %w", i, err)
			}
			merges[i] = m
		}
		return merges, nil
	}
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return nil, errors.New("model.merges: expected a list of \"a b\" strings or of [\"a\", \"b\"] pairs")
	}
	merges := make([][2]string, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("model.merges[%d]: found %q, expected two tokens", i, p)
		}
		merges[i] = [2]string(p)
	}
	return merges, nil
}

func splitMerge(line string) (m [2]string, err error) {
	left, right, ok := strings.Cut(line, " ")
	if !ok || left == "" || right == "" || strings.Contains(right, " ") {
		return m, fmt.Errorf("found %q, expected two tokens with a space between", line)
	}
	return [2]string{left, right}, nil
}

// assemble fills t from the parts of a vocabulary. words, nfc and ignoreMerges are set already.
func (t *Tokenizer) assemble(vocab map[string]int64, merges [][2]string, added []addedToken) error {
	if len(vocab) == 0 {
		return errors.New("model.vocab: found no tokens")
	}
	if len(merges) > maxMerges {
		return fmt.Errorf("model.merges: found %d, expected at most %d", len(merges), maxMerges)
	}
	highest := int64(-1)
	for _, id := range vocab {
		if id < 0 || id > maxID {
			return badVocab(vocab)
		}
		highest = max(highest, id)
	}
	for i, a := range added {
		if a.ID < 0 || a.ID > maxID {
			return fmt.Errorf("added_tokens[%d] (%q): id %d, expected 0 to %d", i, a.Content, a.ID, maxID)
		}
		highest = max(highest, a.ID)
	}
	t.ids = make(map[string]int32, len(vocab)+len(added))
	t.tokens = make([]token, highest+1)
	var buf []byte
	for text, id := range vocab {
		if t.tokens[id].used {
			return badVocab(vocab)
		}
		t.ids[text] = int32(id)
		raw, ok := symbolBytes(buf[:0], text)
		if !ok {
			raw = append(raw, text...)
		}
		buf = raw
		t.tokens[id] = token{text: text, bytes: string(raw), used: true}
	}
	if err := t.assembleAdded(added); err != nil {
		return err
	}
	for b := range 256 {
		id, ok := t.ids[string(byteRune(byte(b)))]
		if !ok {
			id, t.lacking = -1, true
		} else if t.tokens[id].special {
			return fmt.Errorf("added_tokens: %q is special, but also the token of byte 0x%02X", t.tokens[id].text, b)
		}
		t.bytes[b] = id
	}
	return t.assembleMerges(vocab, merges)
}

// badVocab returns the error of a vocabulary with bad ids: of several, always the same one.
func badVocab(vocab map[string]int64) error {
	owner := make(map[int64]string)
	for _, text := range slices.Sorted(maps.Keys(vocab)) {
		id := vocab[text]
		if id < 0 || id > maxID {
			return fmt.Errorf("model.vocab[%q]: id %d, expected 0 to %d", text, id, maxID)
		}
		if first, ok := owner[id]; ok {
			return fmt.Errorf("model.vocab: id %d belongs to both %q and %q", id, first, text)
		}
		owner[id] = text
	}
	return errors.New("model.vocab: bad ids")
}

func (t *Tokenizer) assembleAdded(added []addedToken) error {
	var raw, normalized []addedToken
	for i, a := range added {
		if a.Content == "" {
			return fmt.Errorf("added_tokens[%d]: content is empty", i)
		}
		if id, ok := t.ids[a.Content]; ok && int64(id) != a.ID {
			return fmt.Errorf("added_tokens[%d]: %q has id %d, but %d before", i, a.Content, a.ID, id)
		}
		if at := &t.tokens[a.ID]; at.used && at.text != a.Content {
			return fmt.Errorf("added_tokens[%d]: %q has the id %d of %q", i, a.Content, a.ID, at.text)
		}
		t.ids[a.Content] = int32(a.ID)
		t.tokens[a.ID] = token{text: a.Content, bytes: a.Content, used: true, special: a.Special}
		if a.Normalized {
			n := a
			if t.nfc {
				n.Content = nfc(a.Content)
			}
			normalized = append(normalized, n)
		} else {
			raw = append(raw, a)
		}
	}
	t.added = added
	t.raw, t.normalized = newMatcher(raw), newMatcher(normalized)
	t.resolveControls()
	return nil
}

func (t *Tokenizer) assembleMerges(vocab map[string]int64, merges [][2]string) error {
	t.merges = make([]merge, len(merges))
	t.table = newMergeTable(len(merges))
	var joined []byte
	for i, m := range merges {
		joined = append(append(joined[:0], m[0]...), m[1]...)
		left, ok1 := vocab[m[0]]
		right, ok2 := vocab[m[1]]
		result, ok3 := vocab[string(joined)]
		switch {
		case !ok1:
			return fmt.Errorf("model.merges[%d]: %q is not in model.vocab", i, m[0])
		case !ok2:
			return fmt.Errorf("model.merges[%d]: %q is not in model.vocab", i, m[1])
		case !ok3:
			return fmt.Errorf("model.merges[%d]: %q is not in model.vocab", i, joined)
		}
		t.merges[i] = merge{int32(left), int32(right), int32(result)}
		// Text of a user must not become a control token, whatever the file's merges say.
		if !t.tokens[result].special {
			t.table.put(t.merges[i], uint32(i))
		}
	}
	if t.ignoreMerges {
		t.whole = make(map[string]int32)
		for id := range t.tokens {
			if k := &t.tokens[id]; k.used && !k.special {
				if raw, ok := symbolBytes(nil, k.text); ok {
					t.whole[string(raw)] = int32(id)
				}
			}
		}
	}
	return nil
}

// companions is what the files beside a vocabulary say.
type companions struct {
	class              string // tokenizer_class
	bos, eos, pad, unk string
	added              []addedToken // with ids, from added_tokens_decoder
	named              []string     // special tokens named without an id
}

// specialName is a token in special_tokens_map.json and tokenizer_config.json: a string or an object with its content.
type specialName string

func (s *specialName) UnmarshalJSON(b []byte) error {
	var text *string
	if json.Unmarshal(b, &text) == nil {
		if text != nil {
			*s = specialName(*text)
		}
		return nil
	}
	var object struct{ Content string }
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	*s = specialName(object.Content)
	return nil
}

func readCompanions(fsys fs.FS, dir, shown string) (companions, error) {
	var c companions
	for _, name := range []string{"special_tokens_map.json", "tokenizer_config.json"} {
		content, err := sizedfile.ReadFS(fsys, path.Join(dir, name), path.Join(shown, name), maxCompanion)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, err
		}
		var f struct {
			Class      string                `json:"tokenizer_class"`
			BOS        specialName           `json:"bos_token"`
			EOS        specialName           `json:"eos_token"`
			PAD        specialName           `json:"pad_token"`
			UNK        specialName           `json:"unk_token"`
			Additional []specialName         `json:"additional_special_tokens"`
			Decoder    map[string]addedToken `json:"added_tokens_decoder"`
		}
		if err := json.Unmarshal(content, &f); err != nil {
			return c, fmt.Errorf("%s: %w", path.Join(shown, name), jsonError(content, err))
		}
		for _, to := range []struct {
			to   *string
			from string
		}{{&c.class, f.Class}, {&c.bos, string(f.BOS)}, {&c.eos, string(f.EOS)}, {&c.pad, string(f.PAD)}, {&c.unk, string(f.UNK)}} {
			if to.from != "" {
				*to.to = to.from
			}
		}
		for _, s := range append([]specialName{f.BOS, f.EOS, f.PAD}, f.Additional...) {
			c.named = append(c.named, string(s))
		}
		for id, a := range f.Decoder {
			if _, err := fmt.Sscanf(id, "%d", &a.ID); err != nil {
				return c, fmt.Errorf("%s: added_tokens_decoder: found id %q, expected a number", path.Join(shown, name), id)
			}
			c.added = append(c.added, a)
		}
	}
	slices.SortFunc(c.added, func(a, b addedToken) int { return int(a.ID - b.ID) })
	return c, nil
}

// loadMerges reads vocab.json and merges.txt.
func loadMerges(fsys fs.FS, dir, shown string, side companions) (*Tokenizer, error) {
	vocabName, mergesName := path.Join(shown, "vocab.json"), path.Join(shown, "merges.txt")
	content, err := sizedfile.ReadFS(fsys, path.Join(dir, "vocab.json"), vocabName, maxFile)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("tokenizer %s: found neither tokenizer.json nor vocab.json", shown)
		}
		return nil, err
	}
	var vocab map[string]int64
	if err := json.Unmarshal(content, &vocab); err != nil {
		return nil, fmt.Errorf("%s: %w", vocabName, jsonError(content, err))
	}
	if content, err = sizedfile.ReadFS(fsys, path.Join(dir, "merges.txt"), mergesName, maxFile); err != nil {
		return nil, err
	}
	merges, err := readMergesText(string(content))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", mergesName, err)
	}
	t := &Tokenizer{}
	switch strings.TrimSuffix(side.class, "Fast") {
	case "", "GPT2Tokenizer", "PreTrainedTokenizer":
		if !mergesDigits(merges) {
			t.words.digits = digitsIndividual
		}
	case "Qwen2Tokenizer":
		t.words.pattern, t.nfc = patternQwen, true
	default:
		return nil, fmt.Errorf("%s: tokenizer_class: found %q, expected GPT2Tokenizer or Qwen2Tokenizer when there is no tokenizer.json",
			path.Join(shown, "tokenizer_config.json"), side.class)
	}
	if err := t.assemble(vocab, merges, side.addedTo(vocab)); err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", shown, err)
	}
	return t, nil
}

func readMergesText(content string) ([][2]string, error) {
	var merges [][2]string
	number := 0
	for line := range strings.Lines(content) {
		number++
		line = strings.TrimRight(line, "\r\n")
		// Only the first line can be a comment: "#" also begins real merges.
		if line == "" || number == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		m, err := splitMerge(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		merges = append(merges, m)
	}
	return merges, nil
}

func mergesDigits(merges [][2]string) bool {
	for _, m := range merges {
		if strings.ContainsAny(m[0], "0123456789") || strings.ContainsAny(m[1], "0123456789") {
			return true
		}
	}
	return false
}

// addedTo returns the added tokens of a vocabulary that has no list of its own: those with ids in the files beside it,
// those named there, and the well-known control tokens that it contains. Names without an id get the next free ones, as
// the Python package numbers them.
func (c companions) addedTo(vocab map[string]int64) []addedToken {
	added := slices.Clone(c.added)
	have := make(map[string]bool)
	next := int64(0)
	for _, a := range added {
		have[a.Content] = true
		next = max(next, a.ID+1)
	}
	for _, id := range vocab {
		next = max(next, id+1)
	}
	add := func(name string, always bool) {
		id, ok := vocab[name]
		if name == "" || have[name] || !ok && !always {
			return
		}
		if !ok {
			id = next
			next++
		}
		have[name] = true
		added = append(added, addedToken{ID: id, Content: name, Special: true})
	}
	// The reference adds additional_special_tokens in the order of the list; the named BOS, EOS and PAD come first.
	for _, name := range c.named {
		add(name, true)
	}
	for _, name := range slices.Concat(endSpellings, separatorSpellings) {
		add(name, false)
	}
	for _, s := range fimSpellings {
		for _, name := range []string{s.prefix, s.middle, s.suffix, s.pad, s.end} {
			add(name, false)
		}
	}
	return added
}

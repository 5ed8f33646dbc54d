package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"autodev/internal/atomicfile"
)

// WriteJSON writes t as a tokenizer.json that the Hugging Face tokenizers package reads. Merges are written as "a b",
// which all its versions understand. The same t always gives the same bytes.
func (t *Tokenizer) WriteJSON(w io.Writer) error {
	out := bufio.NewWriter(w)
	field := func(name string, value any) {
		fmt.Fprintf(out, "  %q: %s,\n", name, encode(value))
	}
	out.WriteString("{\n")
	field("version", "1.0")
	field("truncation", nil)
	field("padding", nil)
	out.WriteString("  \"added_tokens\": [")
	for i, a := range t.added {
		separator(out, i)
		fmt.Fprintf(out, "    %s", encode(a))
	}
	out.WriteString("\n  ],\n")
	if t.nfc {
		field("normalizer", object{"type": "NFC"})
	} else {
		field("normalizer", nil)
	}
	field("pre_tokenizer", t.words.steps())
	field("post_processor", nil)
	field("decoder", byteLevel(true))
	out.WriteString("  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n" +
		"    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n")
	fmt.Fprintf(out, "    \"ignore_merges\": %v,\n    \"vocab\": {", t.ignoreMerges)
	n := 0
	for id := range t.tokens {
		if k := &t.tokens[id]; k.used {
			separator(out, n)
			fmt.Fprintf(out, "      %s: %d", encode(k.text), id)
			n++
		}
	}
	out.WriteString("\n    },\n    \"merges\": [")
	for i, m := range t.merges {
		separator(out, i)
		fmt.Fprintf(out, "      %s", encode(t.tokens[m.left].text+" "+t.tokens[m.right].text))
	}
	out.WriteString("\n    ]\n  }\n}\n")
	return out.Flush()
}

// Save writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into dir, each whole or not at all, and
// makes dir if need be. The transformers package loads such a folder with AutoTokenizer.
func (t *Tokenizer) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save tokenizer: %w", err)
	}
	var main bytes.Buffer
	if err := t.WriteJSON(&main); err != nil {
		return fmt.Errorf("save tokenizer: %w", err)
	}
	named := object{}
	for _, n := range []struct {
		key string
		id  int32
	}{{"bos_token", t.bos}, {"eos_token", t.eos}, {"pad_token", t.pad}} {
		if n.id >= 0 {
			named[n.key] = t.tokens[n.id].text
		}
	}
	additional := []string{}
	decoder := object{}
	for _, a := range t.added {
		decoder[strconv.FormatInt(a.ID, 10)] = object{"content": a.Content, "single_word": a.SingleWord, "lstrip": a.LStrip,
			"rstrip": a.RStrip, "normalized": a.Normalized, "special": a.Special}
		if a.Special && int32(a.ID) != t.bos && int32(a.ID) != t.eos && int32(a.ID) != t.pad {
			additional = append(additional, a.Content)
		}
	}
	if len(additional) > 0 {
		named["additional_special_tokens"] = additional
	}
	config := object{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false, "added_tokens_decoder": decoder}
	for key, value := range named {
		config[key] = value
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{"tokenizer.json", main.Bytes()},
		{"special_tokens_map.json", indented(named)},
		{"tokenizer_config.json", indented(config)},
	} {
		if err := atomicfile.WriteFile(filepath.Join(dir, f.name), f.content); err != nil {
			return fmt.Errorf("save tokenizer: %w", err)
		}
	}
	return nil
}

// object is a JSON object; encoding/json writes its keys in order.
type object map[string]any

func byteLevel(useRegex bool) object {
	return object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": useRegex}
}

// steps returns the pre_tokenizer that p is.
func (p splitter) steps() object {
	var list []object
	if p.digits != digitsJoined {
		list = append(list, object{"type": "Digits", "individual_digits": p.digits == digitsIndividual})
	}
	if p.pattern == patternGPT2 {
		list = append(list, byteLevel(true))
	} else {
		list = append(list, object{"type": "Split", "pattern": object{"Regex": regexes[p.pattern]}, "behavior": "Isolated", "invert": false}, byteLevel(false))
	}
	if len(list) == 1 {
		return list[0]
	}
	return object{"type": "Sequence", "pretokenizers": list}
}

func separator(w *bufio.Writer, i int) {
	if i > 0 {
		w.WriteByte(',')
	}
	w.WriteByte('\n')
}

// encode is json.Marshal for values that cannot fail, without the escaping for HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // only strings, numbers, booleans and lists of them come here
	}
	return bytes.TrimSpace(b.Bytes())
}

func indented(v object) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, encode(v), "", "  "); err != nil {
		panic(err) // encode writes valid JSON
	}
	b.WriteByte('\n')
	return b.Bytes()
}

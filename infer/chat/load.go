package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"autodev/internal/sizedfile"
)

// maxFile bounds the files that templates are read from; the longest of the wild have 30 KiB, tokenizer_config.json 2 MiB.
const maxFile = 32 << 20

// Load reads the chat template of a model folder: chat_template.jinja, or chat_template of tokenizer_config.json, which is a text or a list of named
// ones, of which the one called "default" is taken. It returns nil, which is the fallback, for a folder that has none.
func Load(folder string) (*Template, error) { return LoadFS(os.DirFS(folder), folder) }

// LoadFS is Load for a folder that need not be on disk; name is what errors call it.
func LoadFS(fsys fs.FS, name string) (*Template, error) {
	var config struct {
		Template json.RawMessage `json:"chat_template"`
		specialTokens
	}
	found, err := readJSON(fsys, name, "tokenizer_config.json", &config)
	if err != nil {
		return nil, err
	}
	source, from := "", "chat_template.jinja"
	file, err := readFile(fsys, name, from)
	switch {
	case err == nil:
		source = string(file)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case found:
		from = "tokenizer_config.json"
		if source, err = defaultOf(config.Template); err != nil {
			return nil, fmt.Errorf("%s: tokenizer_config.json: chat_template: %w", name, err)
		}
	}
	if source == "" {
		return nil, nil
	}
	var side specialTokens
	if _, err := readJSON(fsys, name, "special_tokens_map.json", &side); err != nil {
		return nil, err
	}
	special := side.texts()
	for k, v := range config.texts() {
		special[k] = v
	}
	t, err := New(source, special)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", name, from, err)
	}
	return t, nil
}

// defaultOf returns the template of a chat_template field.
func defaultOf(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one, nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &named); err != nil {
		return "", fmt.Errorf("expected a text or a list of named texts: %w", err)
	}
	for _, t := range named {
		if t.Name == "default" {
			return t.Template, nil
		}
	}
	if len(named) == 0 {
		return "", nil
	}
	return "", fmt.Errorf("found %d named templates, expected one called default", len(named))
}

// specialTokens are the fields that templates know by name. Each is a text or an object with one.
type specialTokens struct {
	BOS  tokenText `json:"bos_token"`
	EOS  tokenText `json:"eos_token"`
	UNK  tokenText `json:"unk_token"`
	SEP  tokenText `json:"sep_token"`
	PAD  tokenText `json:"pad_token"`
	CLS  tokenText `json:"cls_token"`
	Mask tokenText `json:"mask_token"`
}

func (s specialTokens) texts() map[string]string {
	out := map[string]string{}
	for name, t := range map[string]tokenText{
		"bos_token": s.BOS, "eos_token": s.EOS, "unk_token": s.UNK, "sep_token": s.SEP, "pad_token": s.PAD, "cls_token": s.CLS, "mask_token": s.Mask,
	} {
		if t != "" {
			out[name] = string(t)
		}
	}
	return out
}

type tokenText string

func (t *tokenText) UnmarshalJSON(b []byte) error {
	var text *string
	if err := json.Unmarshal(b, &text); err == nil {
		if text != nil {
			*t = tokenText(*text)
		}
		return nil
	}
	var object struct{ Content string }
	if err := json.Unmarshal(b, &object); err != nil {
		return fmt.Errorf("expected a text or an object with content: %w", err)
	}
	*t = tokenText(object.Content)
	return nil
}

// readJSON decodes a file that need not be there.
func readJSON(fsys fs.FS, folder, file string, v any) (found bool, err error) {
	content, err := readFile(fsys, folder, file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		if err = json.Unmarshal(content, v); err != nil {
			err = fmt.Errorf("%s: %s: %w", folder, file, err)
		}
	}
	return err == nil, err
}

func readFile(fsys fs.FS, folder, file string) ([]byte, error) {
	return sizedfile.ReadFS(fsys, file, folder+": "+file, maxFile)
}

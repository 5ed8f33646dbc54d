package infer

import "strings"

// dialect is a family of fill-in-the-middle markers as clients spell them in raw prompts.
type dialect struct {
	name                   string
	prefix, suffix, middle string
	// repo and file are the markers of a repository's name and of the files before the prefix; may be empty. inside says that the path of the
	// file with the cursor stands behind the marker of the prefix.
	repo, file string
	inside     bool
	// padded says that a space behind the marker of the prefix, and before the others, belongs to it.
	padded bool
	// short says that the text may begin with the suffix and end with the prefix, without a marker of the middle.
	short bool
}

// dialects have those first that stand for all with the same markers of fill-in-the-middle.
var dialects = []dialect{
	{name: "santacoder", prefix: "<fim-prefix>", suffix: "<fim-suffix>", middle: "<fim-middle>"},
	{name: "starcoder", prefix: "<fim_prefix>", suffix: "<fim_suffix>", middle: "<fim_middle>", repo: "<reponame>", file: "<filename>"}, // and StableCode
	{name: "starcoder2", prefix: "<fim_prefix>", suffix: "<fim_suffix>", middle: "<fim_middle>", repo: "<repo_name>", file: "<file_sep>", inside: true},
	{name: "qwen", prefix: "<|fim_prefix|>", suffix: "<|fim_suffix|>", middle: "<|fim_middle|>", repo: "<|repo_name|>", file: "<|file_sep|>"},
	{name: "codegemma", prefix: "<|fim_prefix|>", suffix: "<|fim_suffix|>", middle: "<|fim_middle|>", file: "<|file_separator|>"},
	{name: "deepseek", prefix: "<｜fim▁begin｜>", suffix: "<｜fim▁hole｜>", middle: "<｜fim▁end｜>"},
	{name: "deepseek", prefix: "<|fim▁begin|>", suffix: "<|fim▁hole|>", middle: "<|fim▁end|>"}, // as some clients spell it
	{name: "codellama", prefix: "<PRE>", suffix: "<SUF>", middle: "<MID>", padded: true},
	{name: "codestral", prefix: "[PREFIX]", suffix: "[SUFFIX]", middle: "[MIDDLE]", short: true},
	{name: "glm", prefix: "<|code_prefix|>", suffix: "<|code_suffix|>", middle: "<|code_middle|>"},
}

// beginnings are markers of the beginning of a text, which mean nothing in front of others.
var beginnings = []string{"<s>", "<bos>", "<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<|endoftext|>", "[gMASK]", "<sop>"}

// ParseDialect recognises a raw prompt that spells the fill-in-the-middle markers of a known family of models, whatever model is
// loaded, and takes it apart, so that it can be encoded for that model. Each marker has to be there exactly once and in an order that is in
// use. A text of which that is not true is a text: ok is false, and p has it as its prefix.
func ParseDialect(raw string) (p Prompt, name string, ok bool) {
	for i, d := range dialects {
		head, q, ok := d.split(raw)
		if !ok {
			continue
		}
		// Several families share these markers: those of files tell them apart.
		for _, e := range dialects[i:] {
			if e.prefix == d.prefix && (e.file != "" && strings.Contains(head, e.file) || e.repo != "" && strings.Contains(head, e.repo)) {
				d = e
				break
			}
		}
		d.files(head, &q)
		q.FIM = FIMAlways
		return q, d.name, true
	}
	return Prompt{Prefix: raw}, "", false
}

// split finds the parts of a text, and what stands before the first of the markers.
func (d *dialect) split(raw string) (head string, p Prompt, ok bool) {
	at := func(marker string) int {
		if strings.Count(raw, marker) != 1 {
			return -1
		}
		return strings.Index(raw, marker)
	}
	pre, suf, mid := at(d.prefix), at(d.suffix), at(d.middle)
	short := d.short && mid < 0 && strings.Count(raw, d.middle) == 0
	if pre < 0 || suf < 0 || mid < 0 && !short {
		return "", p, false
	}
	// What stands between the markers, and behind the last one.
	part := func(from int, marker string, to int) string {
		if to < 0 {
			to = len(raw)
		}
		return raw[from+len(marker) : to]
	}
	switch {
	case short:
		if suf > pre || strings.TrimSpace(withoutBeginning(raw[:suf])) != "" {
			return "", p, false
		}
		head, p.Suffix, p.Prefix = raw[:suf], part(suf, d.suffix, pre), part(pre, d.prefix, -1)
	case pre < suf && suf < mid:
		head = raw[:pre]
		before := part(pre, d.prefix, suf)
		p.Suffix = part(suf, d.suffix, mid)
		after := part(mid, d.middle, -1)
		if d.padded {
			before, p.Suffix, after = unpad(before, true, true), unpad(p.Suffix, false, true), unpad(after, true, false)
		}
		// Suffix first, the prefix is behind the middle; else that is where the completion has begun.
		p.Prefix = before + after
	case suf < pre && pre < mid:
		head, p.Suffix = raw[:suf], part(suf, d.suffix, pre)
		p.Prefix = part(pre, d.prefix, mid) + part(mid, d.middle, -1)
	default:
		return "", p, false
	}
	return head, p, true
}

// unpad takes a space away at the sides, or the mark that stands for one in vocabularies.
func unpad(s string, front, back bool) string {
	for _, space := range []string{" ", "▁"} {
		if t, ok := strings.CutPrefix(s, space); ok && front {
			s, front = t, false
		}
		if t, ok := strings.CutSuffix(s, space); ok && back {
			s, back = t, false
		}
	}
	return s
}

// withoutBeginning returns s without the markers of the beginning of a text.
func withoutBeginning(s string) string {
	for again := true; again; {
		again = false
		for _, b := range beginnings {
			if t, ok := strings.CutPrefix(s, b); ok {
				s, again = t, true
			}
		}
	}
	return s
}

// files takes apart what stands before the first marker: other files, names; any other text belongs to the prefix.
func (d *dialect) files(head string, p *Prompt) {
	head = withoutBeginning(head)
	if d.padded {
		head = strings.TrimSuffix(head, "▁")
	}
	if d.file == "" || !strings.Contains(head, d.file) && (d.repo == "" || !strings.Contains(head, d.repo)) {
		p.Prefix = head + p.Prefix
		return
	}
	parts := strings.Split(head, d.file)
	if text, repo, ok := strings.Cut(parts[0], d.repo); ok && d.repo != "" {
		parts[0], p.Repository = text, strings.TrimSpace(repo)
	}
	for i, part := range parts {
		switch name, text, _ := strings.Cut(part, "\n"); {
		case i == 0:
			p.Prefix = part + p.Prefix // before all files
		case i < len(parts)-1:
			if strings.ContainsAny(name, " \t") {
				name, text = "", part
			}
			p.Files = append([]File{{strings.TrimSpace(name), text}}, p.Files...)
		default:
			p.Filename = strings.TrimSpace(name)
			p.Prefix = text + p.Prefix
		}
	}
	if d.inside && p.Filename == "" && len(parts) > 1 {
		if name, text, ok := strings.Cut(p.Prefix, "\n"); ok && name != "" && !strings.ContainsAny(name, " \t") && strings.ContainsAny(name, "./") {
			p.Filename, p.Prefix = name, text
		}
	}
}

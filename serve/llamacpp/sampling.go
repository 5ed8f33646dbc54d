package llamacpp

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"autodev/infer"
	"autodev/serve/wire"
)

// llama.cpp's values where a request names none. The temperature is that of a prompt's second and later choices: whoever completes code wants the
// most probable text, and the same request is to give the same answer.
const (
	defaultTemperature  = 0.8
	defaultTopK         = 40
	defaultTopP         = 0.95
	defaultMinP         = 0.05
	defaultPenaltyLastN = 64
)

// maxSamplers bounds a list of samplers.
const maxSamplers = 64

// noSeed is llama.cpp's number for any seed.
const noSeed = math.MaxUint32

// sampling is how a request has tokens chosen.
type sampling struct {
	infer.Sampling
	samplers []string  // as they are listed, or those that are in use anyway
	sure     bool      // the first choice is the most probable text, and Temperature that of the others
	biases   []rawBias // for Bias, when the model is known
}

// rawBias is a logit_bias of a token, or of all tokens of a text.
type rawBias struct {
	id   int32
	text *string
	bias float64
}

// samplerNames are the samplers that change something here, by the names that llama.cpp has for them.
var samplerNames = map[string]string{
	"top_k": "top_k", "top-k": "top_k", "topk": "top_k",
	"top_p": "top_p", "top-p": "top_p", "topp": "top_p", "nucleus": "top_p",
	"min_p": "min_p", "min-p": "min_p", "minp": "min_p",
	"temperature": "temperature", "temp": "temperature",
	"penalties": "penalties", "infill": "infill",
}

// samplerLetters are their letters where the list is one string.
var samplerLetters = map[rune]string{'k': "top_k", 'p': "top_p", 'm': "min_p", 't': "temperature", 'e': "penalties", 'i': "infill"}

// readSamplers reads which samplers are in use: an array of names or a string of letters.
func readSamplers(f *wire.Fields) []string {
	raw, ok := f.Get("samplers")
	if !ok {
		return []string{"penalties", "top_k", "top_p", "min_p", "temperature"}
	}
	list := []string{}
	if letters, ok := element[string](raw); ok {
		for _, c := range letters {
			if name, ok := samplerLetters[c]; ok && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
		return list
	}
	if wire.KindOf(raw) != "an array" {
		f.Wrong("samplers", raw, "an array of names or a string")
		return list
	}
	names := f.Texts("samplers")
	if len(names) > maxSamplers {
		f.Fail(wire.BadField("samplers", "found %d names, expected at most %d", len(names), maxSamplers))
		return list
	}
	for _, n := range names {
		if name, ok := samplerNames[strings.ToLower(n)]; ok && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// readSampling reads the fields of sampling. Those of samplers that are not in use are checked and change nothing.
func readSampling(f *wire.Fields) sampling {
	s := sampling{samplers: readSamplers(f), biases: readBiases(f)}
	has := func(name string) bool { return slices.Contains(s.samplers, name) }
	_, given := f.Get("temperature")
	temperature := max(0, f.Number("temperature", defaultTemperature))
	switch {
	case given && (has("temperature") || temperature == 0):
		s.Temperature = temperature
	case has("infill"):
		s.sure, s.Temperature = true, 1
	case has("temperature"):
		s.sure, s.Temperature = true, defaultTemperature
	default:
		s.Temperature = 1 // llama.cpp then draws from the probabilities as they are
	}
	if k := f.Whole("top_k", defaultTopK, math.MinInt32, math.MaxInt32); has("top_k") {
		s.TopK = max(0, k) // 0 and less are all
	}
	if p := f.Number("top_p", defaultTopP); has("top_p") {
		s.TopP = p
	}
	if p := f.Number("min_p", defaultMinP); has("min_p") {
		s.MinP = p
	}
	last := f.Whole("repeat_last_n", defaultPenaltyLastN, -1, math.MaxInt32)
	repeat, presence, frequency := f.Number("repeat_penalty", 1), f.Number("presence_penalty", 0), f.Number("frequency_penalty", 0)
	if has("penalties") && last != 0 {
		s.RepetitionPenalty, s.PresencePenalty, s.FrequencyPenalty = repeat, presence, frequency
		s.RepetitionWindow = max(0, last) // −1 is the whole context
	}
	s.Seed = readSeed(f)
	return s
}

// readSeed reads a seed. A random one has 32 bits, as the answer tells it and not every client keeps 64.
func readSeed(f *wire.Fields) uint64 {
	raw, ok := f.Get("seed")
	if n, isNumber := element[float64](raw); ok && (!isNumber || n >= 0 && n != noSeed) {
		return f.Seed("seed")
	}
	return uint64(uint32(wire.NewSeed()))
}

// choice returns the sampling of the i-th completion of a prompt.
func (s *sampling) choice(i int) infer.Sampling {
	c := s.Sampling
	c.Choice = uint64(i)
	if s.sure && i == 0 {
		c.Temperature = 0
	}
	return c
}

// banned is the bias of a token that must not occur: the least that package infer takes.
const banned = -100

// readBiases reads logit_bias: an object of token ids or texts and biases, or an array of such pairs. The bias false bans.
func readBiases(f *wire.Fields) []rawBias {
	raw, ok := f.Get("logit_bias")
	if !ok {
		return nil
	}
	const expected = "an object of tokens and numbers, or an array of such pairs"
	var all []rawBias
	if byToken, ok := element[map[string]json.RawMessage](raw); ok {
		for token, value := range byToken {
			b := rawBias{text: &token}
			if id, err := strconv.ParseInt(token, 10, 32); err == nil {
				b = rawBias{id: int32(id)}
			}
			if b.bias, ok = readBias(value); !ok {
				f.Fail(wire.BadField("logit_bias", "found a bias that is %s, expected a number or false", wire.KindOf(value)))
				return nil
			}
			all = append(all, b)
		}
		return all
	}
	pairs, ok := element[[][]json.RawMessage](raw)
	if !ok {
		f.Wrong("logit_bias", raw, expected)
		return nil
	}
	for i, pair := range pairs {
		var b rawBias
		ok := len(pair) == 2
		if ok {
			if b.id, ok = element[int32](pair[0]); !ok {
				var text string
				text, ok = element[string](pair[0])
				b.text = &text
			}
		}
		if ok {
			b.bias, ok = readBias(pair[1])
		}
		if !ok {
			f.Fail(wire.BadField("logit_bias", "%s: expected a token, as an id or a text, and a number or false", at(i)))
			return nil
		}
		all = append(all, b)
	}
	return all
}

func readBias(raw json.RawMessage) (float64, bool) {
	if v, ok := element[bool](raw); ok {
		return banned, !v
	}
	return element[float64](raw)
}

// bias returns what is added to the logits of an engine's tokens.
func (s *sampling) bias(e wire.Engine) (map[int32]float64, error) {
	if s.biases == nil {
		return nil, nil
	}
	all := make(map[int32]float64, len(s.biases))
	for _, b := range s.biases {
		if b.text == nil {
			all[b.id] = b.bias
			continue
		}
		for _, id := range e.Encode(*b.text, false) {
			all[id] = b.bias
		}
	}
	return all, nil
}

package openai

import (
	"math"

	"autodev/infer"
	"autodev/serve/wire"
)

// defaultTemperature differs from OpenAI's 1: whoever completes or changes code wants the most probable text, and the same request is to give
// the same answer.
const defaultTemperature = 0

// maxChoices bounds the completions of one request.
const maxChoices = 128

// maxStopIDs bounds the tokens that a request may end at: each token generated is compared with all of them.
const maxStopIDs = 1024

// options are the fields that bodies of completions and of chat have in common.
type options struct {
	model        string
	n            int
	minTokens    int
	ignoreEOS    bool
	sampling     infer.Sampling
	stop         []string
	stopIDs      []int32
	stream       bool
	includeUsage bool
	fields       *wire.Fields // for what depends on the model
}

func readOptions(f *wire.Fields) options {
	o := options{
		model:        f.Text("model", ""),
		n:            f.Whole("n", 1, 1, maxChoices),
		minTokens:    f.Whole("min_tokens", 0, 0, math.MaxInt32),
		ignoreEOS:    f.Boolean("ignore_eos", false),
		sampling:     sampling(f),
		stop:         f.Stops("stop"),
		stopIDs:      f.IDs("stop_token_ids"),
		stream:       f.Boolean("stream", false),
		includeUsage: includeUsage(f),
		fields:       f,
	}
	if n := len(o.stopIDs); n > maxStopIDs {
		f.Fail(wire.BadField("stop_token_ids", "found %d token ids, expected at most %d", n, maxStopIDs))
	}
	return o
}

// sampling reads the fields that say how tokens are chosen: OpenAI's; top_k, min_p and repetition_penalty of vLLM and others; and repeat_penalty
// and repeat_last_n, as llama.cpp and LM Studio call the penalty and its window.
func sampling(f *wire.Fields) infer.Sampling {
	return infer.Sampling{
		Temperature:       f.Number("temperature", defaultTemperature),
		TopP:              f.Number("top_p", 1),
		TopK:              max(0, f.Whole("top_k", 0, -1, math.MaxInt32)), // −1 is how some clients say all
		MinP:              f.Number("min_p", 0),
		PresencePenalty:   f.Number("presence_penalty", 0),
		FrequencyPenalty:  f.Number("frequency_penalty", 0),
		RepetitionPenalty: f.Number("repetition_penalty", f.Number("repeat_penalty", 0)),
		RepetitionWindow:  max(0, f.Whole("repeat_last_n", 0, -1, math.MaxInt32)),
		Seed:              f.Seed("seed"),
		Bias:              f.Bias("logit_bias"),
	}
}

// includeUsage reads stream_options.
func includeUsage(f *wire.Fields) bool {
	o := f.Object("stream_options")
	include := o.Boolean("include_usage", false)
	f.Join("stream_options", o)
	return include
}

// choices returns n requests like q that draw their tokens apart.
func (o *options) choices(q infer.Request) []infer.Request {
	q.MinTokens, q.IgnoreEOS, q.Sampling = o.minTokens, o.ignoreEOS, o.sampling
	q.Stop, q.StopIDs = append(q.Stop, o.stop...), append(q.StopIDs, o.stopIDs...)
	all := make([]infer.Request, o.n)
	for i := range all {
		all[i] = q
		all[i].Sampling.Choice = uint64(i)
	}
	return all
}

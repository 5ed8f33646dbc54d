package main

import (
	"context"
	"flag"
	"os"
	"slices"
	"time"

	"autodev/compute/devices"
	"autodev/infer"
	"autodev/model"
)

// decode completes a prompt, one token after the other, the likeliest each time, which the card chooses. Every token reads all
// weights once: bytes times tokens a second is what reaches the card's arithmetic of its memory's bandwidth. The same again without early launches
// says what these are worth.
func decode(ctx context.Context, args []string) (_ any, err error) {
	f := flag.NewFlagSet("decode", flag.ContinueOnError)
	folder := f.String("model", "", "model folder")
	file := f.String("tokens-file", "", "as of step: the prompt is its beginning")
	name := f.String("device", "cuda", devices.Expected)
	weights := f.String("weights", string(infer.BFloat16), "format of the weights")
	prompt, n := f.Int("prompt", 512, "tokens"), f.Int("tokens", 256, "decoded, at least 2")
	windowsScored, length := f.Int("windows", 8, "scored, to time evaluation, after one that is not counted"), f.Int("length", 2048, "tokens of a window")
	if err := parse(f, args); err != nil {
		return nil, err
	}
	spec, err := devices.Parse(*name)
	if err != nil {
		return nil, err
	}
	source, err := model.Open(*folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, source.Close()) }()
	w, err := readWindows(*file, max(*length, *prompt+*n), source.Config.Vocab)
	if err != nil {
		return nil, err
	}
	r := struct {
		Device  string  `json:"device"`
		Weights string  `json:"weights"`
		Bytes   int64   `json:"weight_bytes"`
		Load    float64 `json:"load_seconds"`
		Prompt  float64 `json:"prompt_tokens_per_second"`
		Decode  float64 `json:"decode_tokens_per_second"`
		Rate    float64 `json:"weight_bytes_per_second"`
		InTurn  float64 `json:"decode_in_turn_tokens_per_second"` // no kernel begins before the one before it has ended
		Logits  float64 `json:"decode_logits_tokens_per_second"`  // all logits come to the host, which chooses
		Score   float64 `json:"score_tokens_per_second"`
		NLL     float64 `json:"score_nll"`
	}{}
	load := func() (*infer.Model, error) {
		return infer.Load(ctx, *folder, source.Config, source, nil, infer.Options{Device: spec, Weights: infer.Weights(*weights)})
	}
	// complete returns the rates of the prompt and of the tokens behind it. Tokens are followed, so that none ends the completion.
	complete := func(m *infer.Model) (prompted, decoded float64, err error) {
		for range 3 { // the first loads kernels and captures graphs
			ids := w.ids[:*prompt]
			res, err := m.Generate(ctx, infer.Request{Prompt: infer.Prompt{IDs: ids}, MaxTokens: *n, Replay: w.ids[*prompt:][:*n], Speculate: infer.SpeculateOff}, nil)
			if err != nil {
				return 0, 0, err
			}
			prompted = max(prompted, res.Timings.PromptRate(len(ids)))
			decoded = max(decoded, res.Timings.DecodeRate(*n-1)) // the first comes of the prompt
		}
		return prompted, decoded, nil
	}
	if r.InTurn, err = inTurn(load, complete); err != nil {
		return nil, err
	}
	begun := time.Now()
	m, err := load()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	i := m.Info()
	r.Device, r.Weights, r.Bytes, r.Load = i.Device, string(i.Weights), i.Bytes, time.Since(begun).Seconds()
	if r.Prompt, r.Decode, err = complete(m); err != nil {
		return nil, err
	}
	r.Rate = float64(r.Bytes) * r.Decode
	if r.Logits, err = withLogits(ctx, m, w.ids[:*prompt], *n); err != nil {
		return nil, err
	}
	var seconds []float64
	for j := range *windowsScored + 1 {
		ids := w.ids[j*(*length)%(len(w.ids)-*length):][:*length]
		start := time.Now()
		nll, err := m.NLL(ctx, ids, 1)
		if err != nil {
			return nil, err
		}
		if j > 0 {
			seconds = append(seconds, time.Since(start).Seconds())
		}
		r.NLL = 0
		for _, v := range nll {
			r.NLL += v / float64(len(nll))
		}
	}
	if len(seconds) > 0 {
		r.Score = float64(*length) / median(seconds)
	}
	return r, nil
}

// inTurn returns the rate of decoding with a model that is loaded on a card without early launches.
func inTurn(load func() (*infer.Model, error), complete func(*infer.Model) (_, decoded float64, _ error)) (decoded float64, err error) {
	if err := os.Setenv(devices.EarlyEnv, "0"); err != nil {
		return 0, err
	}
	defer func() { err = join(err, os.Unsetenv(devices.EarlyEnv)) }()
	m, err := load()
	if err != nil {
		return 0, err
	}
	defer m.Close()
	_, decoded, err = complete(m)
	return decoded, err
}

// withLogits returns the rate of decoding n tokens where the host chooses each.
func withLogits(ctx context.Context, m *infer.Model, prompt []int32, n int) (float64, error) {
	s := m.NewSession()
	defer s.Close()
	logits, err := s.Append(ctx, prompt)
	if err != nil {
		return 0, err
	}
	var took []float64
	for range n {
		start := time.Now()
		if logits, err = s.Append(ctx, []int32{int32(slices.Index(logits, slices.Max(logits)))}); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start).Seconds())
	}
	return 1 / median(took), nil
}

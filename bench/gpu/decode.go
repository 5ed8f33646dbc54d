package main

import (
	"context"
	"flag"
	"slices"
	"time"

	"autodev/compute/devices"
	"autodev/infer"
	"autodev/model"
)

// decode evaluates a prompt and then one token after the other, the likeliest each time, in one sequence. Every token reads all
// weights once: bytes times tokens a second is what reaches the card's arithmetic of its memory's bandwidth.
func decode(ctx context.Context, args []string) (_ any, err error) {
	f := flag.NewFlagSet("decode", flag.ContinueOnError)
	folder := f.String("model", "", "model folder")
	file := f.String("tokens-file", "", "as of step: the prompt is its beginning")
	name := f.String("device", "cuda", devices.Expected)
	weights := f.String("weights", string(infer.BFloat16), "format of the weights")
	prompt, n := f.Int("prompt", 512, "tokens"), f.Int("tokens", 256, "decoded, after as many that are not counted")
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
	w, err := readWindows(*file, max(*length, *prompt), source.Config.Vocab)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	m, err := infer.Load(ctx, *folder, source.Config, source, nil, infer.Options{Device: spec, Weights: infer.Weights(*weights)})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	i := m.Info()
	r := struct {
		Device  string  `json:"device"`
		Weights string  `json:"weights"`
		Bytes   int64   `json:"weight_bytes"`
		Load    float64 `json:"load_seconds"`
		Prompt  float64 `json:"prompt_tokens_per_second"`
		Decode  float64 `json:"decode_tokens_per_second"`
		Rate    float64 `json:"weight_bytes_per_second"`
		Score   float64 `json:"score_tokens_per_second"`
		NLL     float64 `json:"score_nll"`
	}{Device: i.Device, Weights: string(i.Weights), Bytes: i.Bytes, Load: time.Since(begun).Seconds()}
	var took []float64
	for round := range 3 { // the first loads kernels and captures graphs
		s := m.NewSession()
		start := time.Now()
		logits, err := s.Append(ctx, w.ids[:*prompt])
		if err == nil {
			if round > 0 {
				r.Prompt = max(r.Prompt, float64(*prompt)/time.Since(start).Seconds())
			}
			for range *n {
				start = time.Now()
				if logits, err = s.Append(ctx, []int32{likeliest(logits)}); err != nil {
					break
				}
				if round > 0 {
					took = append(took, time.Since(start).Seconds())
				}
			}
		}
		s.Close()
		if err != nil {
			return nil, err
		}
	}
	r.Decode = 1 / median(took)
	r.Rate = float64(r.Bytes) * r.Decode
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

func likeliest(logits []float32) int32 { return int32(slices.Index(logits, slices.Max(logits))) }

// Command inference is AutoDev's side of bench/inference/compare.py where the commands do not reach: texts of a corpus as token
// ids, and completions that follow given tokens in place of the model's choices, which the servers cannot be asked for.
//
//	inference edits CORPUS TOKENIZER FILES                 prints edits of files: kind, language, prompt, target
//	inference middles CORPUS TOKENIZER COUNT B M A         prints so many runs of B, M and A tokens, each of another file
//	inference complete MODEL WEIGHTS THREADS               answers requests of standard input; WEIGHTS "-": what the folder is packed in
//
// CORPUS is a folder with a folder of files for each language. Lines in and out are JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"autodev/infer"
	"autodev/internal/edits"
	"autodev/model"
	"autodev/model/packed"
	"autodev/tokenizer"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "inference:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("expected edits CORPUS TOKENIZER FILES, middles CORPUS TOKENIZER COUNT B M A or complete MODEL WEIGHTS THREADS")

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	numbers := func(texts []string) ([]int, error) {
		var ns []int
		for _, t := range texts {
			n, err := strconv.Atoi(t)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q, expected a positive number", t)
			}
			ns = append(ns, n)
		}
		return ns, nil
	}
	switch command, args := args[0], args[1:]; {
	case command == "edits" && len(args) == 3, command == "middles" && len(args) == 6:
		n, err := numbers(args[2:])
		if err != nil {
			return err
		}
		tok, err := tokenizer.Load(args[1])
		if err != nil {
			return err
		}
		if command == "edits" {
			return writeEdits(ctx, out, tok, args[0], n[0])
		}
		return writeMiddles(ctx, out, tok, args[0], n[0], [3]int(n[1:]))
	case command == "complete" && len(args) == 3:
		threads, err := numbers(args[2:])
		if err != nil {
			return err
		}
		return answer(ctx, in, out, args[0], args[1], threads[0])
	}
	return errUsage
}

func writeEdits(ctx context.Context, out io.Writer, tok *tokenizer.Tokenizer, corpus string, files int) error {
	changed, _, err := edits.Corpus(ctx, tok, corpus, files)
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	for _, x := range changed {
		err := e.Encode(map[string]any{"kind": x.Kind, "language": x.Language, "prompt": x.Prompt, "target": x.Target})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeMiddles takes its files from all languages in turn. The run begins where a file's longer parts are left on both sides in
// equal shares.
func writeMiddles(ctx context.Context, out io.Writer, tok *tokenizer.Tokenizer, corpus string, count int, lengths [3]int) error {
	total := lengths[0] + lengths[1] + lengths[2]
	var byLanguage [][][]int32
	for _, language := range edits.Languages() {
		var found [][]int32
		err := edits.Files(ctx, corpus, language, func(text string) bool {
			if ids := tok.Encode(text); len(ids) >= total {
				found = append(found, ids[(len(ids)-total)/2:][:total])
			}
			return len(found) < count
		})
		if err != nil {
			return err
		}
		byLanguage = append(byLanguage, found)
	}
	e := json.NewEncoder(out)
	written := 0
	for i := range count {
		for _, found := range byLanguage {
			if i >= len(found) || written == count {
				continue
			}
			written++
			ids := found[i]
			middle := ids[lengths[0]:]
			if err := e.Encode(map[string]any{"before": ids[:lengths[0]], "middle": middle[:lengths[1]], "after": middle[lengths[1]:]}); err != nil {
				return err
			}
		}
	}
	if written < count {
		return fmt.Errorf("%s: %d files of at least %d tokens, expected %d", corpus, written, total, count)
	}
	return nil
}

// request asks for a completion.
type request struct {
	Fresh     bool    `json:"fresh"` // forget all requests before
	Prompt    []int32 `json:"prompt"`
	New       int     `json:"new"`       // tokens; 0 evaluates the prompt alone
	Replay    []int32 `json:"replay"`    // followed in place of the model's choices, unless null
	Masked    []int32 `json:"masked"`    // never chosen
	Speculate bool    `json:"speculate"` // where it seems to pay
}

// response is what a completion took.
type response struct {
	IDs      []int32 `json:"ids"`
	First    float64 `json:"first_s"` // from the request to the first token, 0 for none
	Total    float64 `json:"total_s"`
	Decode   float64 `json:"decode_s"` // of it, after the prompt
	Cached   int     `json:"cached"`   // tokens of the prompt that had been evaluated before
	Drafted  int     `json:"drafted"`
	Accepted int     `json:"accepted"`
}

func open(ctx context.Context, folder, weights string, threads int) (*infer.Model, error) {
	tok, err := tokenizer.Load(folder)
	if err != nil {
		return nil, err
	}
	// What copies weights in the background would be measured.
	o := infer.Options{Threads: threads, HugePages: infer.HugePagesOn}
	if weights != "-" {
		if o.Weights, err = infer.ParseWeights(weights); err != nil {
			return nil, err
		}
	}
	if packed.Is(os.DirFS(folder)) {
		p, err := packed.Open(folder)
		if err != nil {
			return nil, err
		}
		return infer.LoadPacked(ctx, p, tok, o)
	}
	f, err := model.Open(folder)
	if err != nil {
		return nil, err
	}
	m, err := infer.Load(ctx, folder, f.Config, f, tok, o)
	return m, errors.Join(err, f.Close())
}

func answer(ctx context.Context, in io.Reader, out io.Writer, folder, weights string, threads int) error {
	m, err := open(ctx, folder, weights, threads)
	if err != nil {
		return err
	}
	defer m.Close()
	engine := infer.NewEngine(m, infer.EngineOptions{})
	lines, e := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var r request
		if err := lines.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if r.Fresh {
			engine = infer.NewEngine(m, infer.EngineOptions{})
		}
		x, err := r.complete(ctx, engine)
		if err != nil {
			return err
		}
		if err := e.Encode(x); err != nil {
			return err
		}
	}
}

func (r request) complete(ctx context.Context, engine *infer.Engine) (x response, err error) {
	q := infer.Request{Prompt: infer.Prompt{IDs: r.Prompt}, MaxTokens: r.New, Replay: r.Replay, Sampling: infer.Sampling{Bias: map[int32]float64{}}}
	for _, id := range r.Masked {
		q.Sampling.Bias[id] = -100
	}
	if !r.Speculate {
		q.Speculate = infer.SpeculateOff
	}
	began := time.Now()
	results, err := engine.Complete(ctx, []infer.Request{q}, func(_ int, c infer.Chunk) error {
		if x.First == 0 && len(c.Tokens) > 0 {
			x.First = time.Since(began).Seconds()
		}
		return nil
	})
	if err != nil {
		return x, err
	}
	res := results[0]
	if len(res.IDs) != r.New {
		return x, fmt.Errorf("%d tokens generated, expected %d", len(res.IDs), r.New)
	}
	x.IDs, x.Total, x.Decode = res.IDs, time.Since(began).Seconds(), res.Timings.Decode.Seconds()
	x.Cached, x.Drafted, x.Accepted = res.Cached, res.Drafted, res.Accepted
	return x, nil
}

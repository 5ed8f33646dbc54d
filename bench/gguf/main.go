// Command gguf compares a model run by AutoDev with the same model, exported as GGUF, run by llama.cpp: token ids of real
// source code, greedy continuations with the log-probability of every token, and perplexity.
//
//	go run ./bench/gguf -server path/to/llama-server [-perplexity path/to/llama-perplexity] [-type f16] [-model DIR] corpus/test
//
// The argument is a folder of the-stack's layout with a folder for each of -languages. llama.cpp runs on the processor with a
// float32 cache and without flash attention, where it rounds least. What remains is its own arithmetic: with F16 weights it
// rounds activations to F16 before every product, and looks GELU up in a table of F16 values.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"autodev/data"
	"autodev/data/source"
	"autodev/infer"
	"autodev/model"
	"autodev/model/gguf"
	"autodev/models"
	"autodev/tokenizer"
)

type options struct {
	server, perplexity, model, kind, languages, keep string
	prompts, tokens, context, threads, chunks        int
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "", "llama-server of llama.cpp")
	flag.StringVar(&o.perplexity, "perplexity", "", "llama-perplexity of llama.cpp; none: no perplexity")
	flag.StringVar(&o.model, "model", models.Tiny, "model folder, or the embedded one")
	flag.StringVar(&o.kind, "type", "f16", "element type of the GGUF file")
	flag.StringVar(&o.languages, "languages", "python,java,javascript", "folders of the corpus")
	flag.IntVar(&o.prompts, "prompts", 10, "prompts of each language")
	flag.IntVar(&o.tokens, "tokens", 48, "tokens to generate after each prompt")
	flag.IntVar(&o.context, "context", 512, "tokens of a perplexity window, of which the second half is scored")
	flag.IntVar(&o.chunks, "chunks", 40, "perplexity windows of each language")
	flag.IntVar(&o.threads, "threads", 2, "threads of both")
	flag.StringVar(&o.keep, "gguf", "", "keep the GGUF file here")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gguf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, args []string) (err error) {
	if len(args) != 1 || o.server == "" {
		return errors.New("expected -server and one folder of documents")
	}
	kind, err := gguf.ParseType(o.kind)
	if err != nil {
		return err
	}
	fsys, embedded, err := models.Open(o.model)
	if err != nil {
		return err
	}
	load, loadTokens := model.Load, tokenizer.Load
	if embedded {
		load = func(ctx context.Context, name string) (*model.Checkpoint, error) {
			return model.LoadFS(ctx, fsys, name)
		}
		loadTokens = func(string) (*tokenizer.Tokenizer, error) { return tokenizer.LoadFS(fsys, ".") }
	}
	ckpt, err := load(ctx, o.model)
	if err != nil {
		return err
	}
	tok, err := loadTokens(o.model)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gguf")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := cmp.Or(o.keep, filepath.Join(dir, "model.gguf"))
	written, err := gguf.Save(ctx, file, ckpt.Config, ckpt.Weights, tok, gguf.Options{Type: kind, Name: "compared"})
	if err != nil {
		return err
	}
	fmt.Printf("%s as %v: %d bytes, %d tensors\n", o.model, kind, written.Bytes, len(written.Tensors))
	for _, n := range written.Notes {
		fmt.Println("note:", n)
	}
	context := ckpt.Config.Positions
	m, err := infer.New(ckpt, tok, infer.Options{Threads: o.threads})
	if err != nil {
		return err
	}
	defer m.Close()
	peer, err := startServer(ctx, o, file, context)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.stop()) }()

	ends := map[int32]bool{}
	for _, id := range ckpt.Config.EOS {
		ends[int32(id)] = true
	}
	if id, ok := tok.EOS(); ok {
		ends[id] = true
	}
	var all tally
	for _, lang := range strings.Split(o.languages, ",") {
		texts, err := readTexts(ctx, filepath.Join(args[0], lang))
		if err != nil {
			return err
		}
		var t tally
		if err := t.compareIDs(ctx, peer, tok, texts); err != nil {
			return err
		}
		if err := t.compareGreedy(ctx, peer, m, tok, texts, ends, o); err != nil {
			return err
		}
		fmt.Printf("%-11s %v\n", lang, &t)
		for _, d := range t.divergences {
			fmt.Println("   ", d)
		}
		all.add(t)
		if o.perplexity != "" {
			if err := comparePerplexity(ctx, o, m, tok, texts, file, dir); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%-11s %v\n", "all", &all)
	return nil
}

// readTexts returns the documents of a folder.
func readTexts(ctx context.Context, dir string) ([]string, error) {
	set, err := source.Open(ctx, source.Options{}, dir)
	if err != nil {
		return nil, err
	}
	r := data.Open(ctx, set, data.Cursor{})
	var texts []string
	for {
		d, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return texts, r.Close()
		}
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		texts = append(texts, d.Content)
	}
}

// tally counts agreement.
type tally struct {
	files, filesEqual, ids int
	prompts, same, tokens  int     // prompts, those continued alike, tokens before the first difference
	worst                  float64 // largest difference of a log-probability, over those tokens
	divergences            []string
	largestGap             float64 // of a logit at a difference
	total, ended           int
}

func (t *tally) add(x tally) {
	t.files, t.filesEqual, t.ids = t.files+x.files, t.filesEqual+x.filesEqual, t.ids+x.ids
	t.prompts, t.same, t.tokens = t.prompts+x.prompts, t.same+x.same, t.tokens+x.tokens
	t.total, t.ended = t.total+x.total, t.ended+x.ended
	t.worst, t.largestGap = max(t.worst, x.worst), max(t.largestGap, x.largestGap)
	t.divergences = append(t.divergences, x.divergences...)
}

func (t *tally) String() string {
	return fmt.Sprintf("ids of %d/%d files equal (%d tokens); %d/%d continuations equal, %d of %d tokens before a difference (%d ended by themselves); log-probabilities differ by at most %.2g; largest logit gap at a difference %.2g",
		t.filesEqual, t.files, t.ids, t.same, t.prompts, t.tokens, t.total, t.ended, t.worst, t.largestGap)
}

// compareIDs encodes every text with both.
func (t *tally) compareIDs(ctx context.Context, peer *server, tok *tokenizer.Tokenizer, texts []string) error {
	for i, text := range texts {
		var reply struct{ Tokens []int32 }
		if err := peer.post(ctx, "/tokenize", map[string]any{"content": text, "add_special": false, "parse_special": false}, &reply); err != nil {
			return err
		}
		ids := tok.Encode(text)
		t.files++
		t.ids += len(ids)
		if slices.Equal(ids, reply.Tokens) {
			t.filesEqual++
			continue
		}
		at := 0
		for at < min(len(ids), len(reply.Tokens)) && ids[at] == reply.Tokens[at] {
			at++
		}
		show := func(ids []int32) string {
			var b []byte
			for _, id := range ids[min(at, len(ids)):min(at+3, len(ids))] {
				b = append(b, tok.TokenBytes(id)...)
			}
			return strconv.Quote(string(b))
		}
		t.divergences = append(t.divergences, fmt.Sprintf("file %d: token %d: autodev %s…, llama.cpp %s…", i, at, show(ids), show(reply.Tokens)))
	}
	return nil
}

// compareGreedy continues the beginnings of documents with both. The lengths of prompts are spread over a third of the context.
func (t *tally) compareGreedy(ctx context.Context, peer *server, m *infer.Model, tok *tokenizer.Tokenizer, texts []string, ends map[int32]bool, o options) error {
	n := 0
	for i, text := range texts {
		if n == o.prompts {
			break
		}
		length := 24 + n*m.Context()/3/o.prompts
		ids := tok.Encode(text)
		if len(ids) < length+o.tokens {
			continue
		}
		n++
		if err := t.continueGreedily(ctx, peer, m, ids[:length], ends, o.tokens, i); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) continueGreedily(ctx context.Context, peer *server, m *infer.Model, prompt []int32, ends map[int32]bool, tokens, doc int) error {
	var reply struct {
		Tokens []int32
		Probs  []struct {
			ID      int32
			LogProb float64
			Top     []struct {
				ID      int32
				LogProb float64
			} `json:"top_logprobs"`
		} `json:"completion_probabilities"`
	}
	err := peer.post(ctx, "/completion", map[string]any{"prompt": prompt, "n_predict": tokens, "temperature": 0, "samplers": []string{"temperature"},
		"repeat_penalty": 1, "cache_prompt": false, "return_tokens": true, "n_probs": 20, "seed": 0}, &reply)
	if err != nil {
		return err
	}
	// The server leaves out tokens that end within a character: then it is unknown which is whose.
	aligned := len(reply.Probs) == len(reply.Tokens)
	s := m.NewSession()
	defer s.Close()
	logits, err := s.Append(ctx, prompt)
	if err != nil {
		return err
	}
	t.prompts++
	for i := range tokens {
		id := argmax(logits)
		switch {
		case ends[id] && i == len(reply.Tokens):
			t.ended++
			t.same++
			return nil
		case i < len(reply.Tokens) && reply.Tokens[i] == id:
			t.total++
			t.tokens++
			if aligned {
				t.worst = max(t.worst, math.Abs(reply.Probs[i].LogProb-logProb(logits, id)))
			}
		default:
			t.total += tokens - i
			what := fmt.Sprintf("document %d, prompt of %d: token %d: autodev %d", doc, len(prompt), i, id)
			theirs := int32(-1)
			if i < len(reply.Tokens) {
				theirs = reply.Tokens[i]
			} else {
				for end := range ends { // it ended: by the likeliest of the tokens that end a text
					if theirs < 0 || logits[end] > logits[theirs] {
						theirs = end
					}
				}
			}
			gap := float64(logits[id] - logits[theirs])
			t.largestGap = max(t.largestGap, gap)
			what += fmt.Sprintf(", llama.cpp %d; logits here differ by %.3g", theirs, gap)
			if aligned && i < len(reply.Probs) {
				for _, p := range reply.Probs[i].Top {
					if p.ID == id {
						what += fmt.Sprintf(", there by %.3g", reply.Probs[i].LogProb-p.LogProb)
					}
				}
			}
			t.divergences = append(t.divergences, what)
			return nil
		}
		if i == tokens-1 {
			break
		}
		if logits, err = s.Append(ctx, []int32{id}); err != nil {
			return err
		}
	}
	t.same++
	return nil
}

func argmax(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}

func logProb(logits []float32, id int32) float64 {
	top := float64(slices.Max(logits))
	var sum float64
	for _, x := range logits {
		sum += math.Exp(float64(x) - top)
	}
	return float64(logits[id]) - top - math.Log(sum)
}

// estimate is what llama-perplexity prints after each window: its number and the perplexity so far. What it prints last sometimes
// gets lost, so it is asked for two windows more.
var estimate = regexp.MustCompile(`\[(\d+)\]([0-9.]+),`)

// comparePerplexity scores the second half of every window of the documents put one after another, as llama-perplexity does.
func comparePerplexity(ctx context.Context, o options, m *infer.Model, tok *tokenizer.Tokenizer, texts []string, file, dir string) error {
	text := strings.Join(texts, "\n")
	ids := tok.Encode(text)
	n := min(o.chunks, len(ids)/o.context-2)
	if n < 1 {
		return fmt.Errorf("%d tokens, expected three windows of %d", len(ids), o.context)
	}
	name := filepath.Join(dir, "text")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, o.perplexity, "-m", file, "-f", name, "-c", strconv.Itoa(o.context), "-b", strconv.Itoa(o.context), "-t", strconv.Itoa(o.threads),
		"--chunks", strconv.Itoa(n+2), "-fa", "off", "-ctk", "f32", "-ctv", "f32")
	out, err := c.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w, ending with %q", o.perplexity, err, out[max(0, len(out)-400):])
	}
	var theirs float64
	for _, x := range estimate.FindAllSubmatch(out, -1) {
		if string(x[1]) == strconv.Itoa(n) {
			theirs, err = strconv.ParseFloat(string(x[2]), 64)
		}
	}
	if err == nil && theirs == 0 {
		err = fmt.Errorf("%s: no perplexity of window %d, output ends with %q", o.perplexity, n, out[max(0, len(out)-400):])
	}
	if err != nil {
		return err
	}
	var sum float64
	count := 0
	for i := range n {
		scores, err := m.NLL(ctx, ids[i*o.context:(i+1)*o.context], o.context/2+1)
		if err != nil {
			return err
		}
		for _, x := range scores {
			sum += x
			count++
		}
	}
	ours := math.Exp(sum / float64(count))
	fmt.Printf("            perplexity of %d tokens: autodev (weights as stored) %.4f, llama.cpp %.4f: %+.3f %%\n", count, ours, theirs, 100*(theirs/ours-1))
	return nil
}

// server is a running llama-server.
type server struct {
	url  string
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan error
}

func startServer(ctx context.Context, o options, file string, context int) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		return nil, err
	}
	threads := strconv.Itoa(o.threads)
	s := &server{url: "http://127.0.0.1:" + port, log: new(bytes.Buffer), done: make(chan error, 1)}
	s.cmd = exec.CommandContext(ctx, o.server, "-m", file, "-c", strconv.Itoa(context), "-np", "1", "-t", threads, "-tb", threads, "-fa", "off", "-ctk", "f32", "-ctv", "f32",
		"--host", "127.0.0.1", "--port", port)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.cmd.Wait() }()
	for range 600 {
		select {
		case err := <-s.done:
			return nil, fmt.Errorf("%s: %w, ending with %q", o.server, err, s.log.Bytes()[max(0, s.log.Len()-600):])
		case <-time.After(100 * time.Millisecond):
		}
		if resp, err := http.Get(s.url + "/health"); err == nil {
			ready := resp.StatusCode == http.StatusOK
			if err := resp.Body.Close(); err != nil {
				return nil, err
			}
			if ready {
				return s, nil
			}
		}
	}
	return nil, errors.Join(fmt.Errorf("%s: not ready after a minute", o.server), s.stop())
}

func (s *server) stop() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	<-s.done // it was killed: its exit status says nothing
	return nil
}

func (s *server) post(ctx context.Context, path string, body, reply any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	out, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300s", path, resp.Status, out)
	}
	return json.Unmarshal(out, reply)
}

// Command card writes the model card of a model that AutoDev trained, from the run's own record and the perplexity tables
// measured afterwards. models/train-tiny calls it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"autodev/model"
	"autodev/train"
)

func main() {
	run := flag.String("run", "", "folder of the run, with train.jsonl and perplexity-LANGUAGE.json")
	dir := flag.String("model", "", "folder of the model")
	languages := flag.String("languages", "", "comma-separated, in the order of the table")
	flag.Parse()
	if err := write(os.Stdout, *run, *dir, strings.Split(*languages, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "card:", err)
		os.Exit(1)
	}
}

// summary is what the record says of the whole run.
type summary struct {
	info    train.RunInfo
	last    train.Entry
	seconds float64
}

func readRecord(name string) (s summary, err error) {
	f, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e train.Entry
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return s, fmt.Errorf("%s: %w", name, err)
		}
		if e.Run != nil {
			s.info = *e.Run
		}
		if e.Time != nil {
			s.seconds += e.Time.Seconds
		}
		if e.Train != nil {
			s.last = e
		}
	}
	if err := in.Err(); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if s.last.Train == nil {
		return s, fmt.Errorf("%s: no optimiser step in the record", name)
	}
	return s, nil
}

// perplexity is the part of `autodev eval perplexity --format json` the card shows.
type perplexity struct {
	Protocol string `json:"protocol"`
	Window   int    `json:"window"`
	Stride   int    `json:"stride"`
	Rows     []struct {
		Perplexity  float64                     `json:"perplexity"`
		Interval    struct{ Low, High float64 } `json:"perplexity_95"`
		Tokens      int                         `json:"tokens"`
		Documents   int                         `json:"documents"`
		BitsPerByte float64                     `json:"bits_per_byte"`
	} `json:"rows"`
}

func write(w io.Writer, run, dir string, languages []string) error {
	s, err := readRecord(filepath.Join(run, train.RecordFile))
	if err != nil {
		return err
	}
	c, err := model.ReadConfig(os.DirFS(dir), dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `---
language: code
license: apache-2.0
---
# autodev-tiny

The model inside the autodev binary: a GPTBigCode model (the architecture of SantaCoder and StarCoder) small enough to travel with it, so that
every command works at once. It was made by AutoDev itself: vocabulary, pre-training and evaluation. It shows the journey; it is no
competitor of a large model. Its vocabulary and weights were learned from Python, Java and JavaScript alone, so that teaching it another language
(`+"`autodev demo`"+`) starts from a model that has never seen it.

| | |
|---|---|
| architecture | gpt_bigcode, multi-query attention, learned positions |
| layers, width, heads, MLP | %d, %d, %d, %d |
| context | %d tokens |
| vocabulary | %d, byte-level BPE with fill-in-the-middle tokens |
| parameters | %d |
| stored as | float16 |
| trained for | %d steps, %d tokens read |
| recipe | configs/autodev-tiny.yaml, run by models/train-tiny |
| data | Python, Java and JavaScript files of permissively licensed Debian, npm and PyPI packages, test repositories held out |
| fill-in-the-middle | half of the examples, half of those suffix first, cut between characters |
| time | %.0f minutes of training on a shared 2-core CPU |
| last training loss | %.3f nats per token |

Perplexity on repositories it has not seen:

| language | perplexity | 95 %% interval | bits per byte | tokens scored | documents |
|---|---:|---:|---:|---:|---:|
`, c.Layers, c.Embed, c.Heads, c.Inner, c.Positions, c.VocabSize, s.info.Parameters, s.last.Step, s.last.Train.Tokens, s.seconds/60, s.last.Train.Loss)
	var p perplexity
	for _, l := range languages {
		name := filepath.Join(run, "perplexity-"+l+".json")
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		p = perplexity{}
		if err := json.Unmarshal(raw, &p); err != nil || len(p.Rows) == 0 {
			return fmt.Errorf("%s: expected the output of autodev eval perplexity --format json: %w", name, err)
		}
		r := p.Rows[0]
		fmt.Fprintf(&b, "| %s | %.2f | %.2f–%.2f | %.3f | %d | %d |\n", l, r.Perplexity, r.Interval.Low, r.Interval.High, r.BitsPerByte, r.Tokens, r.Documents)
	}
	fmt.Fprintf(&b, "\nProtocol: %s, window %d, stride %d: every token of a document but its first; intervals by bootstrap over documents.\n", p.Protocol, p.Window, p.Stride)
	_, err = io.WriteString(w, b.String())
	return err
}

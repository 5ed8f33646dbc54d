package tokenizer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// TrainConfig says what vocabulary to train.
type TrainConfig struct {
	// VocabSize is the number of ids wanted: the specials, the 256 bytes and the merges. It is less in the end when the
	// documents run out of pairs.
	VocabSize int
	// Specials are the control tokens; they get the ids 0, 1, … in this order. The first end-of-text spelling among them
	// ("<|endoftext|>") is EOS.
	Specials []string
	// DigitsIndividually makes every digit a token, as in the StarCoder family.
	DigitsIndividually bool
	// MinFrequency is how often a pair must occur to be merged; 0 means 2.
	MinFrequency int64
	// Progress, when set, is called from time to time, from the goroutine of Train.
	Progress func(TrainProgress)
}

// TrainProgress is the state of a running Train.
type TrainProgress struct {
	Documents int64 // read so far
	Bytes     int64 // of their text
	Words     int   // distinct words in them
	Merges    int   // found so far; 0 while documents are read
	MaxMerges int   // that VocabSize has room for
}

// Train learns a byte-level BPE vocabulary from documents (Sennrich et al., Neural Machine Translation of Rare Words
// with Subword Units, 2016), with GPT-2's splitting pattern. Each step merges the most frequent pair; among equals the
// pair with the lower left id, then the lower right id, which is also the rule of the Hugging Face trainer. The result
// depends on how often each word occurs and on nothing else, so neither on the order of the documents.
//
// A merge that would spell one of the specials is left out, so that text never becomes a special token. Memory grows
// with the number of distinct words. An error of documents ends the training.
func Train(ctx context.Context, c TrainConfig, documents iter.Seq2[string, error]) (*Tokenizer, error) {
	if c.MinFrequency == 0 {
		c.MinFrequency = 2
	}
	base := len(c.Specials) + 256
	switch {
	case c.VocabSize < base:
		return nil, fmt.Errorf("train tokenizer: vocabulary size %d, expected at least %d (%d specials and 256 bytes)", c.VocabSize, base, len(c.Specials))
	case c.VocabSize > maxID+1:
		return nil, fmt.Errorf("train tokenizer: vocabulary size %d, expected at most %d", c.VocabSize, maxID+1)
	case c.MinFrequency < 1:
		return nil, fmt.Errorf("train tokenizer: minimum frequency %d, expected at least 1", c.MinFrequency)
	}
	vocab := make(map[string]int64, c.VocabSize)
	added := make([]addedToken, len(c.Specials))
	for i, s := range c.Specials {
		if s == "" {
			return nil, fmt.Errorf("train tokenizer: special token %d is empty", i)
		}
		if _, ok := vocab[s]; ok {
			return nil, fmt.Errorf("train tokenizer: special token %q is given twice", s)
		}
		vocab[s] = int64(i)
		added[i] = addedToken{ID: int64(i), Content: s, Special: true}
	}
	// Ids of bytes ascend with the characters that spell them, as the Hugging Face trainer numbers its alphabet.
	spelling := make([]rune, 256)
	for b := range 256 {
		spelling[b] = byteRune(byte(b))
	}
	slices.Sort(spelling)
	for i, r := range spelling {
		if _, ok := vocab[string(r)]; ok {
			return nil, fmt.Errorf("train tokenizer: special token %q is the token of a byte", string(r))
		}
		vocab[string(r)] = int64(len(c.Specials) + i)
	}
	t := &Tokenizer{}
	if c.DigitsIndividually {
		t.words.digits = digitsIndividual
	}
	tr := trainer{config: c, text: make([]string, c.VocabSize)}
	for s, id := range vocab {
		tr.text[id] = s
		if id >= int64(len(c.Specials)) {
			b, _ := runeByte([]rune(s)[0])
			tr.bytes[b] = int32(id)
		}
	}
	tr.progress.MaxMerges = c.VocabSize - base
	if err := tr.count(ctx, t.words, documents); err != nil {
		return nil, fmt.Errorf("train tokenizer: %w", err)
	}
	merges, err := tr.learn(ctx, vocab)
	if err != nil {
		return nil, fmt.Errorf("train tokenizer: %w", err)
	}
	if err := t.assemble(vocab, merges, added); err != nil {
		return nil, fmt.Errorf("train tokenizer: %w", err)
	}
	return t, nil
}

// trainer holds the distinct words and the pairs in them.
type trainer struct {
	config   TrainConfig
	progress TrainProgress
	bytes    [256]int32
	text     []string // spelling by id

	symbols []int32 // of all words, one after the other; -1 fills a word up after its last symbol
	starts  []int   // of each word in symbols, and one more at the end
	counts  []int64 // of each word
	pairs   map[uint64]*pairStats
	queue   pairQueue
}

// pairStats is what is known of a pair of tokens.
type pairStats struct {
	key   uint64
	count int64
	queue int64   // count with which the pair was put into the queue
	words []int32 // that hold it, or held it once
	dirty bool    // its count has changed in this step
}

// count splits the documents into words and lays the distinct ones out in symbols.
func (tr *trainer) count(ctx context.Context, words splitter, documents iter.Seq2[string, error]) error {
	const every = 256 // documents between looks at the context
	counts := make(map[string]*int64)
	for text, err := range documents {
		if err != nil {
			return err
		}
		for i := 0; i < len(text); {
			end := words.next(text, i)
			if n := counts[text[i:end]]; n != nil {
				*n++
			} else {
				// A copy: a key that points into the document would keep all of it.
				n := int64(1)
				counts[string([]byte(text[i:end]))] = &n
			}
			i = end
		}
		tr.progress.Bytes += int64(len(text))
		if tr.progress.Documents++; tr.progress.Documents%every == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			tr.progress.Words = len(counts)
			tr.report()
		}
	}
	if len(counts) > math.MaxInt32 {
		return fmt.Errorf("%d distinct words, expected at most %d", len(counts), math.MaxInt32)
	}
	if len(counts) == 0 {
		return errors.New("the documents are empty")
	}
	tr.progress.Words = len(counts)
	size := 0
	distinct := make([]string, 0, len(counts))
	for w := range counts {
		distinct = append(distinct, w)
		size += len(w)
	}
	slices.Sort(distinct) // only so that memory is laid out, and progress runs, the same way every time
	tr.symbols = make([]int32, 0, size)
	tr.starts = make([]int, 0, len(distinct)+1)
	tr.counts = make([]int64, 0, len(distinct))
	for _, w := range distinct {
		tr.starts = append(tr.starts, len(tr.symbols))
		tr.counts = append(tr.counts, *counts[w])
		for i := range len(w) {
			tr.symbols = append(tr.symbols, tr.bytes[w[i]])
		}
	}
	tr.starts = append(tr.starts, len(tr.symbols))
	return ctx.Err()
}

// learn finds the merges and adds their results to vocab.
func (tr *trainer) learn(ctx context.Context, vocab map[string]int64) ([][2]string, error) {
	tr.pairs = make(map[uint64]*pairStats)
	for w := range tr.counts {
		s := tr.symbols[tr.starts[w]:tr.starts[w+1]]
		for i := range len(s) - 1 {
			tr.add(s[i], s[i+1], int32(w), tr.counts[w])
		}
	}
	for _, p := range tr.pairs {
		p.queue = p.count
		tr.queue = append(tr.queue, p)
	}
	// A comparison that never finds two pairs equal makes the order of pops independent of the order of the map.
	tr.queue.init()
	var merges [][2]string
	listed := make(map[uint64]bool)
	for len(vocab) < tr.config.VocabSize && len(tr.queue) > 0 {
		if len(merges)%64 == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			tr.progress.Merges = len(merges)
			tr.report()
		}
		p := tr.queue[0]
		if p.queue != p.count {
			// Counts of waiting pairs only fall, so correcting them at the top is enough.
			p.queue = p.count
			tr.queue.down(0)
			continue
		}
		tr.queue.pop()
		if p.count < tr.config.MinFrequency {
			break
		}
		left, right := int32(p.key>>32), int32(uint32(p.key))
		merged := tr.text[left] + tr.text[right]
		id, ok := vocab[merged]
		if ok && id < int64(len(tr.config.Specials)) {
			delete(tr.pairs, p.key)
			continue
		}
		if !ok {
			id = int64(len(vocab))
			vocab[merged] = id
			tr.text[id] = merged
		}
		// A pair comes a second time when another merge made one of its tokens anew; its first place in the list holds.
		if !listed[p.key] {
			listed[p.key] = true
			merges = append(merges, [2]string{tr.text[left], tr.text[right]})
		}
		tr.merge(p, left, right, int32(id))
	}
	tr.progress.Merges = len(merges)
	tr.report()
	return merges, nil
}

// add changes the count of a pair for one occurrence in word w, which occurs n times.
func (tr *trainer) add(left, right, w int32, n int64) *pairStats {
	key := pairKey(left, right)
	p := tr.pairs[key]
	if p == nil {
		p = &pairStats{key: key, queue: -1}
		tr.pairs[key] = p
	}
	p.count += n
	if len(p.words) == 0 || p.words[len(p.words)-1] != w {
		p.words = append(p.words, w)
	}
	return p
}

// merge replaces the pair p by id in all words.
func (tr *trainer) merge(p *pairStats, left, right, id int32) {
	delete(tr.pairs, p.key)
	var grown []*pairStats
	more := func(a, b, w int32, n int64) {
		q := tr.add(a, b, w, n)
		if !q.dirty {
			q.dirty = true
			grown = append(grown, q)
		}
	}
	less := func(a, b int32, n int64) {
		if q := tr.pairs[pairKey(a, b)]; q != nil {
			q.count -= n
		}
	}
	for _, w := range p.words {
		n := tr.counts[w]
		s := tr.symbols[tr.starts[w]:tr.starts[w+1]]
		// to is where the next symbol of the shortened word goes.
		to := 0
		for i := 0; i < len(s) && s[i] >= 0; i++ {
			if s[i] != left || i+1 == len(s) || s[i+1] != right {
				s[to] = s[i]
				to++
				continue
			}
			if to > 0 {
				less(s[to-1], left, n)
				more(s[to-1], id, w, n)
			}
			if i+2 < len(s) && s[i+2] >= 0 {
				less(right, s[i+2], n)
				more(id, s[i+2], w, n)
			}
			s[to] = id
			to++
			i++
		}
		for i := to; i < len(s) && s[i] >= 0; i++ {
			s[i] = -1
		}
	}
	for _, q := range grown {
		q.dirty = false
		switch {
		case q.queue < 0: // not waiting yet
			q.queue = q.count
			tr.queue.push(q)
		case q.count > q.queue:
			// Only when id was a token already: a waiting pair of it has become more frequent.
			q.queue = q.count
			tr.queue.init()
		}
	}
}

func (tr *trainer) report() {
	if tr.config.Progress != nil {
		tr.config.Progress(tr.progress)
	}
}

// pairQueue is a binary heap, the pair to merge next at its root.
type pairQueue []*pairStats

func before(a, b *pairStats) bool {
	if c := cmp.Compare(a.queue, b.queue); c != 0 {
		return c > 0
	}
	return a.key < b.key
}

func (q pairQueue) init() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

func (q *pairQueue) push(p *pairStats) {
	*q = append(*q, p)
	s := *q
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !before(s[i], s[parent]) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (q *pairQueue) pop() {
	s := *q
	n := len(s) - 1
	s[0] = s[n]
	s[n] = nil
	*q = s[:n]
	if n > 0 {
		(*q).down(0)
	}
}

func (q pairQueue) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(q) {
			return
		}
		if c+1 < len(q) && before(q[c+1], q[c]) {
			c++
		}
		if !before(q[c], q[i]) {
			return
		}
		q[i], q[c] = q[c], q[i]
		i = c
	}
}

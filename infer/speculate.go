package infer

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Speculate says whether a completion may be decoded several tokens at a time.
type Speculate uint8

const (
	// SpeculateAuto drafts tokens where the measured times of this model and the drafts' success so far promise a gain.
	SpeculateAuto Speculate = iota
	// SpeculateOff evaluates one token at a time.
	SpeculateOff
	// SpeculateAlways drafts as much as can be found, whether it pays or not.
	SpeculateAlways
)

// Speculative decoding without a draft model (prompt look-up; Leviathan et al. 2023 for the principle): code repeats itself, so
// what followed the last tokens before is a guess at what follows them now. Several guessed tokens are evaluated in one pass,
// which reads the weights once, and every position is sampled as if they had come one by one; at the first choice that is not
// the guessed token the rest is forgotten. Logits do not depend on how many tokens a pass holds and a choice is a function of
// (logits, seed, index), so that the completion is the same with and without, for any sampling. Time decides how much is
// guessed, never what comes out.

// passSizes are the numbers of tokens that a speculative pass evaluates: the one that is certain and the draft.
var passSizes = [...]int{1, 2, 3, 4, 6, 8, 12, 16, 24, headTokens}

// maxMatch is the longest match that is told from a longer one.
const maxMatch = 32

// classes counts the kinds of matches that have their own rate of success: found near the last one by a single token, and of
// 1, 2–3, 4–7, 8–15, 16–31 and more tokens.
const classes = 7

// class returns the kind of a match of n tokens; 0 is one near the last.
func class(n int) int {
	if n == 0 {
		return 0
	}
	return min(bits.Len(uint(n)), classes-1)
}

// speculation is what a model has learnt about its drafts: what passes cost and how often guesses are right. It is shared by
// all completions and safe for concurrent use.
type speculation struct {
	mu      sync.Mutex
	cost    [len(passSizes)]float64 // seconds of a pass; 0: none timed
	right   [classes]float64        // guesses confirmed lately
	tried   [classes]float64
	drafts  int
	refused int // passes that were not worth a draft since the last draft
	probe   int // the pass that is tried in spite of that next: one less than its index in passSizes
}

const (
	// priorWeight is how many tries the expectation before the first try counts for, and memory how many tries count at all.
	priorWeight = 4
	memory      = 200
	// priorSlope is the share of a one-token pass that another token costs, as long as none was timed: low, so that it will be.
	priorSlope = 0.05
	// worthwhile is how many times as fast a draft has to promise to be, for what is measured is not exact.
	worthwhile = 1.08
	// curiosity is the number of drafts of which one is longer than seems best.
	curiosity = 12
	// recheck is how many refusals, for each token of a pass, are followed by a draft in spite of them: what was slow or wrong
	// once need not be so for ever. All sizes get their turn, the large ones less often.
	recheck = 20
)

// priors are the rates of success expected of a new model.
var priors = [classes]float64{0.5, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95}

// timed records the time of a pass of n tokens.
func (s *speculation) timed(n int, d time.Duration) {
	i := slices.Index(passSizes[:], n)
	if i < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whatever disturbs a pass makes it longer: the shortest is the truth, unless it is long ago.
	if t, c := d.Seconds(), &s.cost[i]; *c == 0 || t < *c {
		*c = t
	} else {
		*c += (t - *c) / 32
	}
}

// judged records that of a draft of n tokens after a match of the given length the first right ones were confirmed, and the
// next was not unless the draft ended.
func (s *speculation) judged(match, n, right int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range min(right+1, n) {
		c := class(grown(match, i))
		if s.tried[c] >= memory {
			s.tried[c], s.right[c] = s.tried[c]*0.75, s.right[c]*0.75
		}
		s.tried[c]++
		if i < right {
			s.right[c]++
		}
	}
}

// grown is the length of a match that i guesses have extended.
func grown(match, i int) int {
	if match == 0 && i > 0 {
		match = 1
	}
	return match + i
}

// draft returns how many of at most n guessed tokens are worth a pass that evaluates others tokens beside them and the one that is
// certain: what maximises the tokens expected per second, of which each of the others is one.
func (s *speculation) draft(match, n, others int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	best, choice, largest := 0.0, 0, 0
	sure, expected, at := 1.0, 1.0, 0 // probability that all guesses so far are right; tokens gained by a pass of them
	for i, size := range passSizes {
		if size-1 > n {
			break
		}
		for ; at < size-1; at++ {
			c := class(grown(match, at))
			sure *= (s.right[c] + priorWeight*priors[c]) / (s.tried[c] + priorWeight)
			expected += sure
		}
		largest = size - 1
		rate := (float64(others) + expected) / s.costOf(others+size)
		if i == 0 {
			rate *= worthwhile
		}
		if rate > best {
			best, choice = rate, size-1
		}
	}
	// Experiments teach something where nobody shares the pass.
	switch {
	case others > 0:
	case choice > 0:
		s.refused = 0
		// A size that was disturbed when it was timed would never be timed again: now and then the next larger one is.
		if s.drafts++; s.drafts%curiosity == 0 {
			i := slices.Index(passSizes[:], choice+1) + 1
			if i < len(passSizes) && passSizes[i]-1 <= n {
				choice = passSizes[i] - 1
			}
		}
	default:
		if s.refused++; s.refused > recheck*passSizes[s.probe+1] {
			choice = min(largest, passSizes[s.probe+1]-1)
			s.refused, s.probe = 0, (s.probe+1)%(len(passSizes)-1)
		}
	}
	return choice
}

// costOf returns the time of a pass of n tokens: between the sizes that are timed, and beyond the largest, a straight line.
func (s *speculation) costOf(n int) float64 {
	i, found := slices.BinarySearch(passSizes[:], n)
	if found {
		return s.passCost(i)
	}
	i = min(i, len(passSizes)-1)
	x, y := passSizes[i-1], s.passCost(i-1)
	return y + (s.passCost(i)-y)*float64(n-x)/float64(passSizes[i]-x)
}

// passCost returns the time of a pass of passSizes[i] tokens, or what those timed make likely.
func (s *speculation) passCost(i int) float64 {
	if s.cost[i] > 0 {
		return s.cost[i]
	}
	below, above := i-1, i+1
	for below >= 0 && s.cost[below] == 0 {
		below--
	}
	for above < len(passSizes) && s.cost[above] == 0 {
		above++
	}
	x := func(i int) float64 { return float64(passSizes[i]) }
	switch {
	case below < 0 && above == len(passSizes):
		return 1 + priorSlope*(x(i)-1)
	case below < 0:
		return s.cost[above] / (1 + priorSlope*(x(above)-x(i)))
	case above < len(passSizes):
		return s.cost[below] + (s.cost[above]-s.cost[below])*(x(i)-x(below))/(x(above)-x(below))
	}
	slope := priorSlope * s.cost[below] / x(below)
	for earlier := below - 1; earlier >= 0; earlier-- {
		if s.cost[earlier] > 0 {
			slope = max(0, (s.cost[below]-s.cost[earlier])/(x(below)-x(earlier)))
			break
		}
	}
	return s.cost[below] + slope*(x(i)-x(below))
}

// drafter guesses the tokens of one completion.
type drafter struct {
	text   lookup
	learnt *speculation
	always bool
	buffer []int32
	from   int // where in the text the guesses came from, and since then would go on; −1: none yet
	match  int // tokens that made the place likely: 0 for one near the last
}

// newDrafter returns a drafter that knows recent texts, the last of which is the most likely to be repeated, and the prompt.
func newDrafter(learnt *speculation, recent [][]int32, prompt []int32, maxNew int, always bool) *drafter {
	n := len(prompt) + maxNew
	for _, r := range recent {
		n += len(r) + 1
	}
	d := &drafter{text: newLookup(n), learnt: learnt, always: always, from: -1}
	for _, r := range recent {
		for _, id := range r {
			d.text.push(id)
		}
		d.text.push(boundary)
	}
	for _, id := range prompt {
		d.text.push(id)
	}
	return d
}

// push adds a token that is certain.
func (d *drafter) push(id int32) {
	if d.from >= 0 && d.from < len(d.text.ids) && d.text.ids[d.from] == id {
		d.from++
	}
	d.text.push(id)
}

// draft returns at most limit guesses at the tokens to come, valid until the next call, for a pass that evaluates others tokens beside
// them.
func (d *drafter) draft(limit, others int) []int32 {
	limit = min(limit, headTokens-1)
	if limit <= 0 {
		return nil
	}
	at, match := d.text.match()
	if match < 2 && d.from >= 0 {
		if near := d.text.near(d.from); near >= 0 {
			at, match = near, 0
		}
	}
	if at < 0 {
		return nil
	}
	d.buffer = d.text.follow(d.buffer[:0], at, limit)
	n := 0
	if d.always {
		for _, size := range passSizes {
			if size-1 <= len(d.buffer) {
				n = size - 1
			}
		}
	} else {
		n = d.learnt.draft(match, len(d.buffer), others)
	}
	if n > 0 {
		d.from, d.match = at, match
	}
	return d.buffer[:n]
}

// judged says how many guesses of the last draft of n were right. It comes before the push of the tokens that followed.
func (d *drafter) judged(n, right int) { d.learnt.judged(d.match, n, right) }

// boundary stands between texts in a lookup; nothing matches it.
const boundary = -1

// grams are the lengths of the indexed runs of tokens, the most telling first.
var grams = [...]int{6, 3, 1}

// candidates bounds the earlier places that are compared for one run of tokens.
const candidates = 32

// lookup finds earlier occurrences of the last tokens of a text that grows: for each of grams a hash table of the last place of
// every run and a chain from each place to the one before.
type lookup struct {
	ids    []int32
	tables [len(grams)][]int32 // hash → 1 + index of the run's last token; 0: none
	chains [len(grams)][]int32 // index of a run's last token → the same of the run before
	shift  uint
}

// newLookup returns a lookup with room for n tokens.
func newLookup(n int) lookup {
	size := uint(bits.Len(uint(n)) + 1)
	l := lookup{ids: make([]int32, 0, n), shift: 64 - size}
	for g := range grams {
		l.tables[g] = make([]int32, 1<<size)
		l.chains[g] = make([]int32, 0, n)
	}
	return l
}

// hash returns the place in the tables of the last n tokens, ok false when there are not so many since the last boundary.
func (l *lookup) hash(n int) (h uint64, ok bool) {
	if len(l.ids) < n {
		return 0, false
	}
	for _, id := range l.ids[len(l.ids)-n:] {
		if id == boundary {
			return 0, false
		}
		h = (h + uint64(id) + 1) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h * 0xbf58476d1ce4e5b9 >> l.shift, true
}

// push adds a token.
func (l *lookup) push(id int32) {
	l.ids = append(l.ids, id)
	for g, n := range grams {
		before := int32(0)
		if h, ok := l.hash(n); ok {
			before = l.tables[g][h]
			l.tables[g][h] = int32(len(l.ids))
		}
		l.chains[g] = append(l.chains[g], before)
	}
}

// match returns the index behind the earlier occurrence of the longest run that ends the text, the latest of equally long ones,
// and the length of the run, at most maxMatch. It is −1, 0 when the last token is new. Of runs that occur often only the latest
// occurrences are compared.
func (l *lookup) match() (at, length int) {
	at = -1
	for g, n := range grams {
		if len(l.chains[g]) == 0 {
			return -1, 0
		}
		p := l.chains[g][len(l.chains[g])-1]
		for range candidates {
			if p == 0 {
				break
			}
			if m := l.common(int(p)); m >= n && m > length {
				at, length = int(p), m
			}
			p = l.chains[g][p-1]
		}
		if length > 0 {
			break
		}
	}
	return at, length
}

// common returns how many tokens before index p equal those that end the text, at most maxMatch.
func (l *lookup) common(p int) int {
	n, end := 0, len(l.ids)
	for n < maxMatch && n < p && l.ids[p-1-n] == l.ids[end-1-n] && l.ids[p-1-n] != boundary {
		n++
	}
	return n
}

// near returns the index behind the occurrence of the last token that is the nearest to where a copy was interrupted, −1 if
// there is none within a line or two.
func (l *lookup) near(from int) int {
	const before, after = 4, 32
	last := l.ids[len(l.ids)-1]
	for p := from; p < min(from+after, len(l.ids)-1); p++ {
		if l.ids[p] == last {
			return p + 1
		}
	}
	for p := from - 1; p >= max(0, from-before); p-- {
		if l.ids[p] == last {
			return p + 1
		}
	}
	return -1
}

// follow appends to dst at most n tokens that follow index at: what stands there, up to a boundary, and where that reaches the
// end of the text its own continuation, as in a period that goes on.
func (l *lookup) follow(dst []int32, at, n int) []int32 {
	base := len(dst)
	for i := at; len(dst)-base < n; i++ {
		id := int32(boundary)
		if i < len(l.ids) {
			id = l.ids[i]
		} else {
			id = dst[base+i-len(l.ids)]
		}
		if id == boundary {
			break
		}
		dst = append(dst, id)
	}
	return dst
}

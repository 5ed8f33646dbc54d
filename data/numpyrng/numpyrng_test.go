package numpyrng

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
)

// TestReferenceVectors checks the vectors of the reference notes, which were made with numpy 1.24.2.
func TestReferenceVectors(t *testing.T) {
	r := NewRandomState(0)
	for i, want := range []uint32{2357136044, 2546248239, 3071714933, 3626093760} {
		if got := r.Uint32(); got != want {
			t.Errorf("RandomState(0) word %d: %d, want %d", i, got, want)
		}
	}
	r = NewRandomState(0)
	for i, want := range []float64{.5488135039273248, .7151893663724195, .6027633760716439} {
		if got := r.RandomSample(); got != want {
			t.Errorf("RandomState(0).random_sample %d: %v, want %v", i, got, want)
		}
	}
	for _, spm := range []float64{.5, 0} {
		r = NewRandomState(0)
		var got []string
		for _, n := range []int{10, 100, 1000, 5000, 37} {
			if r.Bernoulli(.5) == 0 {
				got = append(got, fmt.Sprintf("n=%d no FIM", n))
				continue
			}
			a, b := r.Randint(n+1), r.Randint(n+1)
			mode := map[int]string{0: "PSM", 1: "SPM"}[r.Bernoulli(spm)]
			got = append(got, fmt.Sprintf("n=%d FIM [%d,%d] %s", n, min(a, b), max(a, b), mode))
		}
		mode := map[float64]string{.5: "SPM", 0: "PSM"}[spm]
		want := []string{"n=10 FIM [0,5] " + mode, "n=100 FIM [9,83] " + mode, "n=1000 no FIM", "n=5000 FIM [705,3468] " + mode, "n=37 FIM [17,24] " + mode}
		if !slices.Equal(got, want) {
			t.Errorf("spm rate %v: %q, want %q", spm, got, want)
		}
	}
	g := NewGenerator(0)
	if g.incHi != 0x418ddadb3af71a82 || g.incLo != 0x588133bc447873a9 || g.hi != 0x1aa1b5345996452d || g.lo != 0x09585eb7a69561e3 {
		t.Errorf("default_rng(0): state %x %x inc %x %x", g.hi, g.lo, g.incHi, g.incLo)
	}
	if got := NewGenerator(0).Permutation(1e6)[:8]; !slices.Equal(got, []int{959233, 623842, 264558, 79733, 79462, 281370, 896848, 833010}) {
		t.Errorf("permutation(1e6): %v", got)
	}
	if got := NewGenerator(0).Permutation(10); !slices.Equal(got, []int{4, 6, 2, 7, 3, 5, 9, 0, 8, 1}) {
		t.Errorf("permutation(10): %v", got)
	}
	if got := NewGenerator(0).Integers(5000, 8); !slices.Equal(got, []int{4253, 3184, 2555, 1348, 1539, 204, 376, 82}) {
		t.Errorf("integers(0, 5000): %v", got)
	}
}

type golden struct {
	RandomState []struct {
		Seed         uint32    `json:"seed"`
		RandomSample []float64 `json:"random_sample"`
		Lengths      []int     `json:"lengths"`
		FIM          []struct {
			Rate      float64  `json:"rate"`
			SPMRate   float64  `json:"spm_rate"`
			Decisions [][3]int `json:"decisions"`
		} `json:"fim"`
	} `json:"random_state"`
	Generator []struct {
		Seed            uint64           `json:"seed"`
		State           []uint32         `json:"state"`
		Raw             []string         `json:"raw"`
		Permutation     []int            `json:"permutation"`
		PermutationHead []int            `json:"permutation_head"`
		ShuffledList    []int            `json:"shuffled_list"`
		Integers        map[string][]int `json:"integers"`
	} `json:"generator"`
	Python []struct {
		Seed   uint64 `json:"seed"`
		First  []int  `json:"first"`
		Second []int  `json:"second"`
	} `json:"python"`
}

// TestGolden checks numbers drawn by numpy 1.26 and Python 3.11 (testdata/make_golden.py).
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var want golden
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if len(want.RandomState) == 0 || len(want.Generator) == 0 || len(want.Python) == 0 {
		t.Fatal("golden.json lacks a section")
	}
	for _, w := range want.RandomState {
		r := NewRandomState(w.Seed)
		for i, x := range w.RandomSample {
			if got := r.RandomSample(); got != x {
				t.Fatalf("RandomState(%d).random_sample %d: %v, want %v", w.Seed, i, got, x)
			}
		}
		for _, f := range w.FIM {
			r := NewRandomState(w.Seed)
			for i, d := range f.Decisions {
				got := [3]int{-1, -1, -1}
				if r.Bernoulli(f.Rate) == 1 {
					a, b := r.Randint(w.Lengths[i]+1), r.Randint(w.Lengths[i]+1)
					got = [3]int{min(a, b), max(a, b), r.Bernoulli(f.SPMRate)}
				}
				if got != d {
					t.Fatalf("RandomState(%d), rates %v and %v, document %d of length %d: %v, want %v", w.Seed, f.Rate, f.SPMRate, i, w.Lengths[i], got, d)
				}
			}
		}
	}
	for _, w := range want.Generator {
		if got := seedSequence(w.Seed, 8); !slices.Equal(got, w.State) {
			t.Errorf("SeedSequence(%d): %v, want %v", w.Seed, got, w.State)
		}
		g := NewGenerator(w.Seed)
		for i, x := range w.Raw {
			if got := strconv.FormatUint(g.Uint64(), 10); got != x {
				t.Fatalf("default_rng(%d) word %d: %s, want %s", w.Seed, i, got, x)
			}
		}
		if got := NewGenerator(w.Seed).Permutation(257); !slices.Equal(got, w.Permutation) {
			t.Errorf("default_rng(%d).permutation(257): %v, want %v", w.Seed, got, w.Permutation)
		}
		if got := NewGenerator(w.Seed).Permutation(100000)[:50]; !slices.Equal(got, w.PermutationHead) {
			t.Errorf("default_rng(%d).permutation(100000): %v, want %v", w.Seed, got, w.PermutationHead)
		}
		if got := shuffled(NewGenerator(w.Seed), 50); !slices.Equal(got, w.ShuffledList) {
			t.Errorf("default_rng(%d).shuffle: %v, want %v", w.Seed, got, w.ShuffledList)
		}
		for high, x := range w.Integers {
			h, err := strconv.Atoi(high)
			if err != nil {
				t.Fatal(err)
			}
			if got := NewGenerator(w.Seed).Integers(h, len(x)); !slices.Equal(got, x) {
				t.Errorf("default_rng(%d).integers(0, %d): %v, want %v", w.Seed, h, got, x)
			}
		}
	}
	for _, w := range want.Python {
		p := NewPython(w.Seed)
		if got := shuffled(p, len(w.First)); !slices.Equal(got, w.First) {
			t.Errorf("random.Random(%d).shuffle: %v, want %v", w.Seed, got[:10], w.First[:10])
		}
		state, err := p.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if got := shuffled(p, len(w.Second)); !slices.Equal(got, w.Second) {
			t.Errorf("random.Random(%d), second shuffle: %v, want %v", w.Seed, got, w.Second)
		}
		var again Python
		if err := again.UnmarshalBinary(state); err != nil {
			t.Fatal(err)
		}
		if got := shuffled(&again, len(w.Second)); !slices.Equal(got, w.Second) {
			t.Errorf("random.Random(%d), second shuffle after restoring: %v, want %v", w.Seed, got, w.Second)
		}
	}
}

func shuffled(s interface{ Shuffle(int, func(i, j int)) }, n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	s.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

func TestUnmarshalRefuses(t *testing.T) {
	var p Python
	if err := p.UnmarshalBinary(make([]byte, 10)); err == nil {
		t.Error("a short state was accepted")
	}
	b := make([]byte, 4*625)
	b[len(b)-1] = 0xff
	if err := p.UnmarshalBinary(b); err == nil {
		t.Error("a position beyond the end was accepted")
	}
}

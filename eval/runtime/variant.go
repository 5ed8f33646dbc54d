package runtime

import (
	"fmt"
	"slices"
)

// Mode says how a completion is generated.
type Mode string

const (
	// Uncached keeps no keys and values: every token evaluates the whole sequence again, as models exported without a cache do.
	Uncached Mode = "uncached"
	// Cached keeps the keys and values of the sequence.
	Cached Mode = "cached"
	// Speculative is Cached with tokens guessed from the text so far and checked several at a time.
	Speculative Mode = "speculative"
)

// Modes lists them in the order of tables.
func Modes() []Mode { return []Mode{Uncached, Cached, Speculative} }

// Variant is one row of the table.
type Variant struct {
	Weights string `json:"weights"`  // format: float32, bf16, int8, int4
	KV      string `json:"kv_cache"` // format of keys and values: float32, bf16, int8
	Mode    Mode   `json:"mode"`
	Threads int    `json:"threads"`
}

func (v Variant) String() string {
	threads := "threads"
	if v.Threads == 1 {
		threads = "thread"
	}
	return fmt.Sprintf("%s, %s, %d %s", v.format(), v.Mode, v.Threads, threads)
}

// format names what decides the output: the weights, and the keys and values where they are not the usual float32.
func (v Variant) format() string {
	if v.KV == "float32" {
		return v.Weights
	}
	return v.Weights + ", KV " + v.KV
}

// Variants returns every combination, by formats, then mode, then threads.
func Variants(weights, kv []string, modes []Mode, threads []int) []Variant {
	var vs []Variant
	for _, w := range weights {
		for _, f := range kv {
			for _, m := range Modes() {
				if !slices.Contains(modes, m) {
					continue
				}
				for _, n := range threads {
					vs = append(vs, Variant{w, f, m, n})
				}
			}
		}
	}
	return vs
}

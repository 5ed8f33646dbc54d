package pack

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"autodev/data"
)

// TestOriginalGolden checks windows made with numpy and Python (testdata/make_original.py), undisturbed and with a resume
// after every window.
func TestOriginalGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Texts         []string `json:"texts"`
		CharsPerToken float64  `json:"chars_per_token"`
		Cases         []struct {
			Sequence      int       `json:"sequence"`
			CharsPerToken float64   `json:"chars_per_token"`
			Seed          uint32    `json:"seed"`
			Rate          float64   `json:"rate"`
			SPMRate       float64   `json:"spm_rate"`
			Endless       bool      `json:"endless"`
			Windows       [][]int32 `json:"windows"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var src data.Slice
	for _, text := range golden.Texts {
		src = append(src, data.Document{Content: text})
	}
	if got, err := CharsPerToken(ctx, src, letters{}); err != nil || got != golden.CharsPerToken {
		t.Errorf("characters per token %v, %v; want %v", got, err, golden.CharsPerToken)
	}
	if len(golden.Cases) < 4 {
		t.Fatalf("%d cases", len(golden.Cases))
	}
	for n, c := range golden.Cases {
		cfg := OriginalConfig{FIMRate: c.Rate, SPMRate: c.SPMRate, Sentinels: sentinels, Sequence: c.Sequence, Seed: c.Seed, Endless: c.Endless, CharsPerToken: c.CharsPerToken}
		for _, resume := range []bool{false, true} {
			o, err := NewOriginal(ctx, src, letters{}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			var stats Stats
			for i, want := range c.Windows {
				if resume {
					state, err := o.State()
					if err != nil {
						t.Fatal(err)
					}
					if o, err = NewOriginal(ctx, src, letters{}, cfg); err != nil {
						t.Fatal(err)
					}
					if err := o.Restore(state); err != nil {
						t.Fatal(err)
					}
				}
				w, err := o.Next(ctx)
				if err != nil {
					t.Fatalf("case %d: window %d: %v", n, i, err)
				}
				if !slices.Equal(w.IDs, want) {
					t.Fatalf("case %d, resume %v: window %d is %v, want %v", n, resume, i, w.IDs, want)
				}
				if !slices.Equal(w.Targets[:len(want)-1], want[1:]) || w.Targets[len(want)-1] != NotScored || slices.Max(w.DocStart) != 0 || int(w.Positions[len(want)-1]) != len(want)-1 {
					t.Fatalf("case %d: window %d: %+v", n, i, w)
				}
				stats = o.Stats()
			}
			if !c.Endless {
				if _, err := o.Next(ctx); err != io.EOF {
					t.Errorf("case %d: after the last window: %v", n, err)
				}
				if want := int64(len(src)); stats.Documents != want {
					t.Errorf("case %d, resume %v: %d documents, want %d", n, resume, stats.Documents, want)
				}
			}
		}
	}
}

func TestOriginalErrors(t *testing.T) {
	ctx := context.Background()
	cfg := OriginalConfig{Sentinels: sentinels, Sequence: 16, Endless: true, CharsPerToken: .01}
	for _, c := range []struct {
		src  data.Slice
		want string
	}{
		{data.Slice{}, "holds no text"},
		{data.Slice{{Content: ""}, {Content: ""}}, "holds no text"},
		{data.Slice{{IDs: []int32{1, 2}, Origin: data.Origin{File: "x.jsonl", Row: 3}}}, "x.jsonl: row 3: the document has ready input_ids"},
	} {
		o, err := NewOriginal(ctx, c.src, letters{}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Next(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
	if _, err := NewOriginal(ctx, data.Slice{}, letters{}, OriginalConfig{Sentinels: sentinels, Sequence: 16}); err == nil {
		t.Error("characters per token of nothing: no error")
	}
	o, err := NewOriginal(ctx, library(3), letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	first := some(t, o, 5)
	o2, err := NewOriginal(ctx, library(3), letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again := some(t, o2, 5); !reflect.DeepEqual(first, again) {
		t.Error("two runs differ")
	}
	for _, bad := range []string{"", "{}", `{"version":1}`} {
		if err := o.Restore([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

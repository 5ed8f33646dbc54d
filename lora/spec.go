package lora

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"autodev/model"
)

// AllLinear as a target stands for every linear module inside the blocks.
const AllLinear = "all-linear"

// Spec says which adapters to make.
type Spec struct {
	Rank    int
	Alpha   float64
	RSLoRA  bool     // scale by Alpha/√Rank instead of Alpha/Rank
	Dropout float64  // on the adapters' input while training
	Targets []string // AllLinear alone, or module names by their last parts: c_attn, attn.c_proj, mlp.c_fc, …
	Init    Init
}

// Init says how A begins; B begins at zero, so that a new adapter changes nothing.
type Init string

const (
	// Kaiming draws A uniformly from ±1/√in, PEFT's default (He et al. 2015 with a = √5).
	Kaiming Init = "kaiming"
	// Gaussian draws A from the normal distribution of standard deviation 1/rank, as PEFT's "gaussian".
	Gaussian Init = "gaussian"
)

// Module is one adapted linear module.
type Module struct {
	Name    string // path in the model: transformer.h.0.attn.c_attn
	In, Out int
	Rank    int
	Alpha   float64
	Scale   float64 // what B·A is multiplied by
}

// A names the parameter of shape [Rank, In].
func (m Module) A() string { return m.Name + ".lora_A" }

// B names the parameter of shape [Out, Rank].
func (m Module) B() string { return m.Name + ".lora_B" }

func scale(alpha float64, rank int, rslora bool) float64 {
	if rslora {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// linear is a linear module of a model's blocks.
type linear struct {
	name    string
	in, out int
}

// linears lists what can be adapted, in the order of the parameter table.
func linears(c model.Config) []linear {
	var ls []linear
	for _, p := range c.Params() {
		if name, ok := strings.CutSuffix(p.Name, ".weight"); ok && p.Kind == model.Matrix && p.Block >= 0 {
			ls = append(ls, linear{name, p.Shape[1], p.Shape[0]})
		}
	}
	return ls
}

// hasSuffix reports whether name is target or ends in ".target", PEFT's rule for lists of target modules.
func hasSuffix(name, target string) bool {
	return name == target || strings.HasSuffix(name, "."+target)
}

// Modules returns the modules of c that the spec adapts, in the order of the parameter table. A target that matches
// nothing is an error that lists what there is.
func (s Spec) Modules(c model.Config) ([]Module, error) {
	switch {
	case s.Rank < 1:
		return nil, fmt.Errorf("lora: rank %d, expected at least 1", s.Rank)
	case !(s.Alpha > 0):
		return nil, fmt.Errorf("lora: alpha %v, expected above 0", s.Alpha)
	case !(s.Dropout >= 0 && s.Dropout < 1):
		return nil, fmt.Errorf("lora: dropout %v, expected at least 0 and below 1", s.Dropout)
	case len(s.Targets) == 0:
		return nil, fmt.Errorf("lora: no targets, expected %s or names of modules", AllLinear)
	}
	all := linears(c)
	for _, t := range s.Targets {
		if t != AllLinear && !slices.ContainsFunc(all, func(l linear) bool { return hasSuffix(l.name, t) }) {
			return nil, fmt.Errorf("lora: target %q matches no linear module of the model, expected %s or some of %s", t, AllLinear, strings.Join(kinds(all), ", "))
		}
	}
	var ms []Module
	for _, l := range all {
		if slices.ContainsFunc(s.Targets, func(t string) bool { return t == AllLinear || hasSuffix(l.name, t) }) {
			ms = append(ms, Module{l.name, l.in, l.out, s.Rank, s.Alpha, scale(s.Alpha, s.Rank, s.RSLoRA)})
		}
	}
	return ms, nil
}

// kinds lists the module names without the path to their block: attn.c_attn, mlp.c_fc, ….
func kinds(all []linear) []string {
	var names []string
	for _, l := range all {
		parts := strings.Split(l.name, ".")
		if k := strings.Join(parts[max(0, len(parts)-2):], "."); !slices.Contains(names, k) {
			names = append(names, k)
		}
	}
	return names
}

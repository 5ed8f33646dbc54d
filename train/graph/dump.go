package graph

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"autodev/compute"
)

// Usage is the memory of a training run in bytes, by space.
type Usage struct {
	Weights   int64 // as kernels read them
	Masters   int64 // of trained parameters whose weights are a rounded copy
	Gradients int64 // 0 where they live in the arena (Config.Once)
	Moments   int64
	Inputs    int64
	Outputs   int64
	Arena     int64 // of the plans as built

	Plain, Checkpointed ArenaUsage // the step's arena without and with gradient checkpointing
}

// ArenaUsage is the arena of a step.
type ArenaUsage struct {
	Bytes       int64 // of the step
	AllPlans    int64 // of all plans with this step: evaluation and the optimiser's work space may need more
	Activations int64 // the most bytes of activations and their gradients alive at once
	Workspace   int64 // the largest work space of a kernel
	Calls       int
	Kept        []Kept // of the blocks: what is not computed again though it could be
}

// Kept is calls of the same name in so many blocks, whose results are kept for their gradients.
type Kept struct {
	Name   string `json:"name"` // in its block
	Blocks int    `json:"blocks"`
}

// kinds sums up calls of blocks.
func kinds(calls []*instr) []Kept {
	var all []Kept
	for _, c := range calls {
		name, rest, _ := strings.Cut(c.call.Name, strconv.Itoa(c.block))
		if inner, ok := strings.CutPrefix(rest, "."); ok {
			name = inner
		}
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(all, func(k Kept) bool { return k.Name == name })
		if i < 0 {
			i, all = len(all), append(all, Kept{Name: name})
		}
		all[i].Blocks++
	}
	return all
}

// Total returns the bytes of all spaces.
func (u Usage) Total() int64 {
	return u.Weights + u.Masters + u.Gradients + u.Moments + u.Inputs + u.Outputs + u.Arena
}

// usage is that of a step placed so, with the arena of all plans.
func (p placement) usage(all int64, kept []*instr) ArenaUsage {
	return ArenaUsage{Bytes: p.arena, AllPlans: all, Activations: p.live, Workspace: p.workspace, Calls: len(p.calls), Kept: kinds(kept)}
}

// Usage returns the memory the plans need.
func (t *Training) Usage() Usage { return t.usage }

// Hash identifies the computation: calls, attributes, shapes and parameters of a step, and whether sums are folded, but neither memory nor
// checkpointing nor what else plans differ by between devices, which change no bit. A run may only resume under plans of the same hash.
func (t *Training) Hash() string { return t.hash }

// fingerprint hashes the program of a step before it is placed.
func (t *Training) fingerprint(p *program) string {
	h := sha256.New()
	if s := t.cfg.storage(); s.Masters() {
		fmt.Fprintf(h, "storage %v\n", s)
	}
	if t.target.FoldsSums() {
		fmt.Fprintln(h, "sums folded")
	}
	for _, q := range t.params {
		fmt.Fprintf(h, "parameter %q %v %v %d\n", q.Name, q.Shape, q.Trained, q.Group)
	}
	number := map[*value]int{}
	operand := func(v *value) string {
		switch {
		case v == nil:
			return "none"
		case v.fixed:
			return fmt.Sprintf("%q", v.name)
		}
		if _, ok := number[v]; !ok {
			number[v] = len(number)
		}
		return fmt.Sprintf("%d:%v%v", number[v], v.buf.DType, v.buf.Shape)
	}
	for _, c := range p.code {
		fmt.Fprintf(h, "%v %+v", c.call.Kernel, c.call.Attr)
		for _, v := range c.in {
			fmt.Fprintf(h, " %s", operand(v))
		}
		for _, v := range c.out {
			fmt.Fprintf(h, " > %s", operand(v))
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Dump writes a readable listing of the plans: memory, parameters, and every call with its operands' names or places.
func (t *Training) Dump(w io.Writer) error {
	out := bufio.NewWriter(w)
	u := t.usage
	if u.Masters > 0 {
		fmt.Fprintf(out, "storage %v: masters %d bytes\n", t.cfg.storage(), u.Masters)
	}
	fmt.Fprintf(out, "memory in bytes: weights %d, gradients %d, moments %d, inputs %d, outputs %d, arena %d\n",
		u.Weights, u.Gradients, u.Moments, u.Inputs, u.Outputs, u.Arena)
	for _, a := range []struct {
		name string
		u    ArenaUsage
	}{{"plain", u.Plain}, {"checkpointed", u.Checkpointed}} {
		fmt.Fprintf(out, "step %s: arena %d, activations %d, work space %d, %d calls\n", a.name, a.u.Bytes, a.u.Activations, a.u.Workspace, a.u.Calls)
	}
	fmt.Fprintf(out, "hash %s\n", t.hash)
	names := t.names()
	fmt.Fprintln(out, "\nparameters")
	for _, p := range t.params {
		fmt.Fprintf(out, "  %-40s %-10s weights+%d", p.Name, dims(p.Shape), p.Weight.Offset)
		if p.Trained {
			fmt.Fprintf(out, ", %v+%d, moments+%d and +%d, group %d", p.Grad.Space, p.Grad.Offset, p.M.Offset, p.V.Offset, p.Group)
		} else {
			fmt.Fprint(out, ", frozen")
		}
		fmt.Fprintln(out)
	}
	for _, p := range t.Plans() {
		fmt.Fprintf(out, "\n%s\n", p.Name)
		for i := range p.Plan.Calls {
			c := &p.Plan.Calls[i]
			fmt.Fprintf(out, "%4d %-17s %-44s %s <- %s%s", i, c.Kernel, c.Name, operands(c.Out, names), operands(c.In, names), attributes(c))
			if c.Work.Space != compute.None {
				fmt.Fprintf(out, " work %d+%d", c.Work.Offset, c.Work.Bytes())
			}
			fmt.Fprintln(out)
		}
	}
	return out.Flush()
}

// names gives the fixed buffers' names by place.
func (t *Training) names() map[string]string {
	names := map[string]string{}
	set := func(b compute.Buffer, name string) { names[at(b)] = name }
	for _, p := range t.params {
		set(p.Weight, p.Name)
		if p.Master.Space != compute.None {
			set(p.Master, "master("+p.Name+")")
		}
		if p.Trained {
			set(p.Grad, "d("+p.Name+")")
			set(p.M, "m("+p.Name+")")
			set(p.V, "v("+p.Name+")")
		}
	}
	for name, b := range map[string]compute.Buffer{
		inIDs: t.io.IDs, inPositions: t.io.Positions, inDocStart: t.io.DocStart, inTargets: t.io.Targets, inScale: t.io.Scale,
		inKey: t.io.Key, "loss": t.io.Loss, "nll": t.io.NLL,
	} {
		set(b, name)
	}
	for i, b := range t.io.SumSquares {
		set(b, fmt.Sprintf("sumsquares%d", i))
	}
	for i, b := range t.io.Hyper {
		set(b, fmt.Sprintf("hyper%d", i))
	}
	return names
}

func at(b compute.Buffer) string { return fmt.Sprintf("%v+%d[%s]", b.Space, b.Offset, dims(b.Shape)) }

func dims(shape []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", "×")
}

func operands(bs []compute.Buffer, names map[string]string) string {
	var parts []string
	for _, b := range bs {
		switch name, ok := names[at(b)]; {
		case b.Space == compute.None:
			parts = append(parts, "-")
		case ok && b.Space != compute.Arena:
			parts = append(parts, name)
		case b.Space == compute.Arena:
			parts = append(parts, fmt.Sprintf("@%d[%s]", b.Offset, dims(b.Shape)))
		default:
			parts = append(parts, at(b))
		}
	}
	return strings.Join(parts, ", ")
}

// attributes lists what a call's kernel reads of its attributes.
func attributes(c *compute.Call) string {
	a := c.Attr
	s := ""
	switch c.Kernel {
	case compute.LayerNorm, compute.LayerNormGrad, compute.LayerNormGainGrad:
		s = fmt.Sprintf(" epsilon=%v", a.Epsilon)
	case compute.Linear, compute.LinearGradX, compute.LinearGradW:
		if a.Alpha != 1 {
			s = fmt.Sprintf(" alpha=%v", a.Alpha)
		}
	case compute.Attention, compute.AttentionGrad:
		s = fmt.Sprintf(" heads=%d/%d dim=%d seq=%d scale=%.4g", a.Heads, a.KVHeads, a.HeadDim, a.Seq, a.Scale)
		if a.Drop > 0 {
			s += fmt.Sprintf(" drop=%v salt=%d", a.Drop, a.Salt)
		}
	case compute.Activation, compute.ActivationGrad:
		s = " " + a.Act.String()
	case compute.Dropout:
		s = fmt.Sprintf(" drop=%v salt=%d", a.Drop, a.Salt)
	case compute.CrossEntropy, compute.TokenNLL:
		s = fmt.Sprintf(" vocab=%d", a.Vocab)
	}
	if a.BF16 && multiplies(c.Kernel) {
		s += " bf16"
	}
	return s
}

// multiplies reports whether a kernel has matrix products, to which Attr.BF16 applies.
func multiplies(k compute.Kernel) bool {
	switch k {
	case compute.Linear, compute.LinearGradX, compute.LinearGradW, compute.Attention, compute.AttentionGrad, compute.CrossEntropy, compute.TokenNLL:
		return true
	}
	return false
}

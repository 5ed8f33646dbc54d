package infer

import (
	"context"
	"fmt"

	"autodev/compute/cpu"
	"autodev/compute/cpu/quant"
	"autodev/infer/calibrate"
	"autodev/model"
)

// calibrated quantises the matrices in the order of the forward pass and writes them: each for the inputs that the calibration
// documents have after the quantised matrices before it. All documents go through the program step by step together, so that
// it runs once. Corrected biases are left in w.biases.
func (w *packWriter) calibrated(ctx context.Context, src model.Source) error {
	t := &tracer{source: &outline{w.specs, src, map[string]*matrix{}}, block: -1}
	model.Forward[int](w.config, t)
	p, err := t.program()
	if err != nil {
		return err
	}
	m := &Model{config: w.config, program: p, pool: w.pool, kernels: cpu.NewKernels(w.pool), rows: w.config.VocabSize, vocab: w.config.Vocab}
	s := m.NewSession()
	run := s.kv.(*processor)
	if err := run.scratch(); err != nil {
		return err
	}
	total, longest := 0, 0
	for i, ids := range w.Calibration {
		if err := s.check(ids); err != nil {
			return fmt.Errorf("calibration document %d: %w", i, err)
		}
		total += len(ids)
		longest = max(longest, len(ids))
	}
	registers := make([][]float32, len(p.widths))
	for i, width := range p.widths {
		registers[i] = make([]float32, total*width)
	}
	for i := range p.steps {
		st := &p.steps[i]
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if st.weight != nil && st.weight.quant == nil {
			var x []float32
			if st.op == opLinear {
				x = registers[st.x][:total*st.weight.in]
			}
			if err := w.calibrate(src, st, x, total); err != nil {
				return err
			}
		}
		if st.op == opHead {
			return nil
		}
		first := 0
		for _, ids := range w.Calibration {
			part := func(r int) []float32 {
				if r < 0 {
					return nil
				}
				return registers[r][first*p.widths[r] : (first+len(ids))*p.widths[r]]
			}
			if err := run.step(st, part(st.out), part(st.x), part(st.y), ids, 0); err != nil {
				return err
			}
			first += len(ids)
		}
		if st.op == opLinear {
			st.weight.quant = nil // written, and not read again
		}
	}
	return nil
}

// calibrate quantises the matrix of a step, whose inputs are x [n, in], or nil for tables and the head, and writes it.
func (w *packWriter) calibrate(src model.Source, st *step, x []float32, n int) error {
	name := st.weight.name
	t, err := src.Read(name)
	if err != nil {
		return err
	}
	f := w.Weights.formatOf(w.config, w.specs[name]).quant()
	if x == nil {
		st.weight.quant = quant.Quantize(w.pool, f, t.Data, st.weight.out, st.weight.in)
		return w.matrix(st.weight)
	}
	inputs := calibrate.Observe(w.pool, append([]float32(nil), x...), n, st.weight.in, st.bias != nil)
	r, err := calibrate.Quantize(w.pool, f, t.Data, st.weight.out, inputs, calibrate.Options{})
	if err != nil {
		return fmt.Errorf("tensor %s: %w", name, err)
	}
	if st.bias != nil {
		bias := append([]float32(nil), st.bias...)
		for i, v := range r.Shift {
			bias[i] += v
		}
		st.bias = bias
		w.biases[biasOf(name)] = bias
	}
	st.weight.quant = quant.FromCodes(f, r.Codes, r.Scales, st.weight.out, st.weight.in)
	return w.matrix(st.weight)
}

// biasOf returns the name of the bias that belongs to a weight.
func biasOf(weight string) string { return weight[:len(weight)-len("weight")] + "bias" }

// outline is a weightSource whose matrices have shapes only.
type outline struct {
	specs    map[string]model.ParamSpec
	source   model.Source
	matrices map[string]*matrix
}

func (o *outline) has(name string) bool { _, ok := o.specs[name]; return ok }

func (o *outline) vector(name string, n int) ([]float32, error) {
	t, err := o.source.Read(name)
	if err != nil {
		return nil, err
	}
	return t.Data, nil
}

func (o *outline) table(name string) ([]float32, int, error) {
	t, err := o.source.Read(name)
	if err != nil {
		return nil, 0, err
	}
	return t.Data, t.Shape[1], nil
}

func (o *outline) matrix(name string) (*matrix, error) {
	if m := o.matrices[name]; m != nil {
		return m, nil
	}
	shape := o.specs[name].Shape
	if len(shape) != 2 {
		return nil, fmt.Errorf("tensor %s: shape %v, expected two dimensions", name, shape)
	}
	m := &matrix{name: name, out: shape[0], in: shape[1]}
	o.matrices[name] = m
	return m, nil
}

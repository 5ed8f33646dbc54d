package infer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"autodev/compute"
	"autodev/compute/cuda"
	"autodev/compute/devices"
	"autodev/model"
)

// card runs a model's program on a CUDA device. All memory is one allocation, whose parts are known before it is made: weights, registers,
// and pages of PageTokens tokens' keys and values, which sequences take and give back. Matrices, activations, keys and values are
// in one type (bf16, float16 or float32); sums and logits are float32. Matrices may be of codes instead, as they are on the processor: products of few rows
// multiply with them as they are, longer ones widen them first, a part at a time. Unlike the processor's, activations are not rounded to codes.
//
// A pass evaluates the new tokens of any number of sequences in one hand-over to the goroutine that owns the device. What is launched for a number of
// tokens is prepared once; for the few tokens of decoding it is captured as a graph. What changes from pass to pass, such as which pages a
// row's sequence has, is read from device memory.
//
// The same passes give the same bits. Spans of up to cuda.FewRows tokens have bits of their own in every pass: neither the number of their tokens nor anything
// beside them changes them, so neither guesses nor neighbours change a choice. The rows of longer spans are multiplied together, by kernels
// that cuBLASLt chooses by the number of rows: parts of prompts that are cut in other places, or evaluated beside others, differ by rounding.
// So a prompt may, between two choices that are as good as equal, end in another token.
type card struct {
	layout
	config    model.Config
	specs     map[string]model.ParamSpec
	short     Weights // BFloat16, or Float16 where it does not multiply in that
	device    *devices.Device
	d         *cuda.Device
	program   *program
	norms     norms
	rows      int // of the head's weight
	vocab     int
	masked    []int32 // never generated
	context   int
	chunk     int
	bytes     int64 // of the matrices
	pageBytes int64 // of all layers
	pages     int

	// What follows belongs to the device's goroutine, once the card is made.
	at     places
	passes map[passKind]*pass
	heads  map[int]*ending // by the number of rows
	inputs [2][]byte       // pinned: what at.inputs get
	chosen []byte          // pinned: what comes of at.choices
	draws  []byte          // pinned: what at.draws get
	wide   wideHead

	mu     sync.Mutex
	free   []int32 // pages
	pinned [][]byte
	idle   [][]byte // of pinned: for logits
}

// newCard brings a traced model to the card that o says. data returns a matrix's elements.
func newCard(ctx context.Context, o Options, m *Model, data func(w *matrix) ([]float32, error)) (_ *card, err error) {
	c := &card{
		config: m.config, specs: m.config.ParamsByName(), short: BFloat16, program: m.program, norms: normsWithin(m.program), rows: m.rows, vocab: m.vocab, masked: m.masked,
		context: m.Context(), chunk: min(cardChunk, m.Context()), passes: map[passKind]*pass{}, heads: map[int]*ending{},
	}
	if devices.Short(o.Device) != compute.BF16 {
		c.short = Float16
	}
	c.layout = layout{m.weights, storeOf(m.kept)}
	if err := c.check(c.layout); err != nil {
		return nil, err
	}
	if c.device, err = devices.Open(o.Device, devices.Options{Fits: c.fits, Lost: o.Lost}); err != nil {
		return nil, err
	}
	var ok bool
	if c.d, ok = c.device.Device.(*cuda.Device); !ok {
		return nil, errors.Join(fmt.Errorf("device %v: models run on the CPU and on CUDA only", o.Device), c.device.Close())
	}
	if err = c.allocate(); err == nil {
		err = c.upload(ctx, m.pool, data)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// close gives the device back. A nil card has none, nor has one that was closed.
func (c *card) close() error {
	if c == nil || c.device == nil {
		return nil
	}
	err := c.d.Do(func(q *cuda.Queue) error {
		var errs []error
		for _, p := range c.passes {
			if p.graph != nil {
				errs = append(errs, p.graph.Free(q))
			}
		}
		for _, b := range c.pinned {
			errs = append(errs, q.FreePinned(b))
		}
		for _, p := range []cuda.Ptr{c.at.base, c.wide.at} {
			if p != 0 {
				errs = append(errs, q.Free(p))
			}
		}
		return errors.Join(errs...)
	})
	if lost := (*cuda.LostError)(nil); errors.As(err, &lost) {
		err = nil // the driver has freed everything
	}
	err = errors.Join(err, c.device.Close())
	c.device = nil
	return err
}

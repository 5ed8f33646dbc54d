package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"autodev/compute"
)

// rule returns the gradient with respect to each wanted operand, given that with respect to the output. Gradients of
// parameters come first, so that the schedule computes them while their inputs are at hand.
func (o *op) rule(in []*G.Node, wanted []bool, output, dy *G.Node) ([]*G.Node, error) {
	grads := make([]*G.Node, len(in))
	add := func(slot int, k compute.Kernel, operands ...*G.Node) error {
		if !wanted[slot] {
			return nil
		}
		name := "d " + o.call.Name
		if _, ok := o.b.params[in[slot].Name()]; ok {
			name = "d " + in[slot].Name()
		}
		n, err := o.gradient(k, name, in[slot].Shape(), operands...)
		grads[slot] = n
		return err
	}
	var errs [4]error
	switch o.call.Kernel {
	case compute.Embed:
		errs[0] = add(0, compute.EmbedGrad, dy, in[2])
		errs[1] = add(1, compute.EmbedGrad, dy, in[3])
	case compute.LayerNorm:
		errs[0] = add(1, compute.LayerNormGainGrad, dy, in[0])
		errs[1] = add(2, compute.BiasGrad, dy)
		errs[2] = add(0, compute.LayerNormGrad, dy, in[0], in[1])
	case compute.Linear:
		errs[0] = add(1, compute.LinearGradW, dy, in[0])
		if in[2] != nil {
			errs[1] = add(2, compute.BiasGrad, dy)
		}
		errs[2] = add(0, compute.LinearGradX, dy, in[1])
		if len(in) > 3 && wanted[3] {
			grads[3] = dy
		}
	case compute.Attention:
		errs[0] = add(0, compute.AttentionGrad, append([]*G.Node{dy}, in...)...)
	case compute.Activation:
		errs[0] = add(0, compute.ActivationGrad, dy, in[0])
	case compute.Add:
		for i := range grads {
			if wanted[i] {
				grads[i] = dy
			}
		}
	case compute.Dropout:
		errs[0] = add(0, compute.Dropout, dy, in[1])
	case compute.CrossEntropy:
		// The kernel has computed its gradients with the loss; they are right only for a loss that is differentiated by itself.
		if !isOne(dy) {
			return nil, fmt.Errorf("%s: cross entropy must be the root of differentiation, found the gradient %v", o.call.Name, dy)
		}
		for slot := range 2 {
			if wanted[slot] {
				grads[slot], errs[slot] = o.pickOutput(output, slot+1, in[slot].Shape())
			}
		}
	default:
		return nil, fmt.Errorf("%s: kernel %v has no gradient", o.call.Name, o.call.Kernel)
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return grads, nil
}

// pickOutput adds the node that stands for side output i of the operation's kernel; loss only orders it.
func (o *op) pickOutput(loss *G.Node, i int, shape []int) (*G.Node, error) {
	p := &op{call: compute.Call{Kernel: o.call.Kernel, Name: o.call.Name}, pick: i, of: o.id, block: o.block}
	o.b.source[p] = o
	return o.b.node(p, shape, loss)
}

// isOne reports whether n is the constant 1 that gorgonia.Grad starts from.
func isOne(n *G.Node) bool {
	if n.Value() == nil {
		return false
	}
	switch v := n.Value().Data().(type) {
	case float32:
		return v == 1
	case float64:
		return v == 1
	}
	return false
}

package lora

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"autodev/model"
)

// Merge adds every module's Scale·B·A to its weight in w, whose shapes must be those of the adapter's model. Each element
// is summed in float64 in the order of ranks and rounded once, whatever the number of threads.
func (a *Adapter) Merge(w *model.Weights) error {
	for _, m := range a.Modules {
		t := w.Get(m.Name + ".weight")
		if t == nil {
			return fmt.Errorf("merge adapter: the model has no tensor %s.weight", m.Name)
		}
		if err := checkShape(t, m); err != nil {
			return err
		}
	}
	for t := range w.All() {
		if err := a.MergeTensor(t); err != nil {
			return err
		}
	}
	return nil
}

// MergeTensor is Merge for one parameter of the model, which stays as it is unless it is a module's weight.
func (a *Adapter) MergeTensor(t *model.Tensor) error {
	for _, m := range a.Modules {
		if t.Name != m.Name+".weight" {
			continue
		}
		if err := checkShape(t, m); err != nil {
			return err
		}
		addProduct(t.Data, a.tensors[m.B()], a.tensors[m.A()], m)
	}
	return nil
}

func checkShape(t *model.Tensor, m Module) error {
	if len(t.Shape) != 2 || t.Shape[0] != m.Out || t.Shape[1] != m.In {
		return fmt.Errorf("merge adapter: tensor %s: shape %v, expected [%d %d]", t.Name, t.Shape, m.Out, m.In)
	}
	return nil
}

// addProduct adds scale·b·a to w, rows in parallel.
func addProduct(w, b, a []float32, m Module) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), m.Out) {
		wg.Go(func() {
			sum := make([]float64, m.In)
			for {
				o := int(next.Add(1)) - 1
				if o >= m.Out {
					return
				}
				clear(sum)
				for r, f := range b[o*m.Rank : (o+1)*m.Rank] {
					x := float64(f)
					for i, v := range a[r*m.In : (r+1)*m.In] {
						sum[i] += x * float64(v)
					}
				}
				row := w[o*m.In : (o+1)*m.In]
				for i, s := range sum {
					row[i] = float32(float64(row[i]) + m.Scale*s)
				}
			}
		})
	}
	wg.Wait()
}

package graph

import (
	"context"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cuda/cudatest"
	"autodev/internal/rng"
)

// gradients takes the gradients of a step at values, which are rounded as weights are kept in a type, on the batch of a draw.
func gradients(t *testing.T, tr *Training, values map[string][]float64, d compute.DType, draw uint64) map[string][]float32 {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := tr.Config()
	for _, p := range tr.Params() {
		x := convert[float32](values[p.Name])
		if d.Short() {
			x = compute.FromShort(d, compute.ToShort(d, x))
		}
		check(tr.SetParam(p.Name, x))
	}
	check(tr.ZeroGrads())
	up, count := 1.0, micros
	if cfg.Precision == Float16 {
		up = 1 << 12
	}
	if cfg.Once {
		count = 1
	}
	for m := range count {
		r := rng.New(draw, "batch")
		for range m {
			r.Uint64()
		}
		_, err := tr.MicroStep(context.Background(), randomBatch(r, cfg.Batch, cfg.Seq, cfg.Model.Vocab), float32(.05*up), [2]int32{int32(draw), int32(m)})
		check(err)
	}
	all := map[string][]float32{}
	for _, p := range tr.Params() {
		if p.Trained {
			g, err := tr.Grad(p.Name)
			check(err)
			for i := range g {
				g[i] /= float32(up)
			}
			all[p.Name] = g
		}
	}
	return all
}

var layerNumber = regexp.MustCompile(`\.h\.\d+\.`)

// slopes compares gradients at the same weights over some draws of weights and tokens: for each kind of parameter, the slope of the device's gradient
// over the CPU's in every draw and layer, which is 1 but for rounding.
func slopes(t *testing.T, device, host *Training, d compute.DType, net network, draws int) map[string][]float64 {
	t.Helper()
	all := map[string][]float64{}
	for draw := range uint64(draws) {
		values := randomParams(net, draw)
		for name, v := range values {
			if len(net.shape(name)) > 1 { // matrices: with larger ones attention is so sharp that it magnifies rounding
				for i := range v {
					v[i] *= 0.5
				}
			}
		}
		got, want := gradients(t, device, values, d, draw), gradients(t, host, values, d, draw)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			var both, one float64
			for i, w := range want[name] {
				both += float64(got[name][i]) * float64(w)
				one += float64(w) * float64(w)
			}
			kind := layerNumber.ReplaceAllString(name, ".h.*.")
			all[kind] = append(all[kind], both/one)
		}
	}
	return all
}

func (n network) shape(name string) []int {
	for _, p := range n.params {
		if p.name == name {
			return p.shape
		}
	}
	return nil
}

// TestCUDAGradients: at the same weights, the device's gradients are the CPU's. In a short type every gradient is off by what rounding makes of it, about
// a hundredth of its norm, and a comparison that lets that pass lets errors of the same size pass; the mean of slopes over many draws does
// not: its standard error, which the slopes' own spread gives, is about a thousandth at most. Chance does not make it six of those; an error of one in
// a hundred is ten.
func TestCUDAGradients(t *testing.T) {
	for _, v := range cudaVariants() {
		for _, c := range gradientCases {
			t.Run(fmt.Sprint(v.name, ", ", c.precision), func(t *testing.T) {
				device, host, net := gradientTrainings(t, v, c, nil)
				for kind, found := range slopes(t, device, host, c.precision.Operands(), net, c.draws) {
					if mean, apart := meanAndError(found); apart > 1.5*c.noise { // the error has one too
						t.Errorf("%s: slopes have a standard error of %.2g, expected about %.2g or less: rounding has become worse", kind, apart, c.noise)
					} else if c.wrong(mean) {
						t.Errorf("%s: the slope is %.5f ± %.5f, expected 1 within %.5f", kind, mean, apart, 6*c.noise)
					}
				}
			})
		}
	}
}

// TestCUDAGradientsPlanted: an error of one in a hundred in a kernel shows, in bfloat16 too, and where it begins.
func TestCUDAGradientsPlanted(t *testing.T) {
	const v = 0 // full fine-tuning
	for _, plant := range []struct {
		kernel   compute.Kernel
		of, seen string
		factor   float64
	}{
		{compute.LinearGradW, "mlp.c_fc", "transformer.h.*.mlp.c_fc.weight", 1.01},
		{compute.LinearGradX, "attn.c_proj", "transformer.h.*.attn.c_attn.weight", 0.99},
	} {
		t.Run(fmt.Sprint(plant.kernel, " ", plant.of), func(t *testing.T) {
			c, planted := gradientCases[2], 0
			device, host, net := gradientTrainings(t, cudaVariants()[v], c, func(p *compute.Plan) {
				for i := range p.Calls {
					if call := &p.Calls[i]; call.Kernel == plant.kernel && strings.Contains(call.Name, plant.of) {
						call.Attr.Alpha *= plant.factor
						planted++
					}
				}
			})
			if planted == 0 {
				t.Fatal("nothing was changed")
			}
			if mean, apart := meanAndError(slopes(t, device, host, c.precision.Operands(), net, c.draws)[plant.seen]); !c.wrong(mean) {
				t.Errorf("%s: the slope is %.5f ± %.5f, expected further from 1 than %.5f", plant.seen, mean, apart, 6*c.noise)
			} else {
				t.Logf("%s: the slope is %.5f ± %.5f", plant.seen, mean, apart)
			}
		})
	}
}

// gradientCases are how many draws have which standard error, about, at most (measured: 3e-7, 2e-4, 8e-4).
var gradientCases = []gradientCase{{Float32, 2, 2e-6}, {Float16, 8, 3e-4}, {BF16, 20, 1e-3}}

type gradientCase struct {
	precision Precision
	draws     int
	noise     float64
}

func (c gradientCase) wrong(slope float64) bool { return !(math.Abs(slope-1) <= 6*c.noise) }

// gradientTrainings returns a variant's training on a device in the case's precision and on the CPU in float32. change, unless it is nil, changes the
// device's plans.
func gradientTrainings(t *testing.T, v variant, c gradientCase, change func(*compute.Plan)) (device, host *Training, net network) {
	t.Helper()
	v.cfg.Batch = 8
	cfg := v.cfg
	if c.precision != Float32 {
		cfg = mixedAs(cfg, c.precision)
	}
	dev := cpu.New(cpu.Options{Threads: 1})
	t.Cleanup(dev.Close)
	net = v.network(t)
	values := randomParams(net, 1)
	host = start(t, v.cfg, net, dev, values)
	cudaPath, cublasPath := "", ""
	if !cudatest.GPU() {
		l := cudatest.Library(t, "")
		cudaPath, cublasPath = l.CUDA, l.CublasLt
		if c.precision == Float16 {
			if err := l.Set("capability", 70); err != nil {
				t.Fatal(err)
			}
		}
	}
	card := openCUDA(t, cudaPath, cublasPath)
	if change == nil {
		return start(t, cfg, net, card, values), host, net
	}
	return start(t, cfg, net, misplaced{card, change}, values), host, net
}

// meanAndError returns the mean and its standard error.
func meanAndError(x []float64) (mean, standardError float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		standardError += (v - mean) * (v - mean)
	}
	n := float64(len(x))
	return mean, math.Sqrt(standardError / (n - 1) / n)
}

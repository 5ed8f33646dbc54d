// Command gemm is AutoDev's side of bench/gemm/compare.py: matrix products timed on request.
//
//	gemm operands FOLDER M N K      writes a-MxK.bin and b-KxN.bin, float32
//	gemm calibrate THREADS          answers every line of standard input with the machine's speed
//	gemm KIND FOLDER THREADS        answers lines "M N K SECONDS" with the time of a product
//
// KIND is float32, bf16 (operands as a training step has them), float32-packed, bf16-packed, int8 or int4 (weights packed
// beforehand, as for inference; int8 and int4 quantise the activations within the time).
// An answer is one JSON object: the median seconds of as many products as fit into SECONDS, and the corners of C.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/eval/runtime"
	"autodev/internal/rng"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gemm:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 5 && args[0] == "operands":
		return writeOperands(args[1], args[2:])
	case len(args) == 2 && args[0] == "calibrate":
		threads, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return answer(func(string) (any, error) { return runtime.Calibrate(threads), nil })
	case len(args) == 3:
		threads, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		w := &worker{kind: args[0], folder: args[1], pool: par.New(threads)}
		defer w.pool.Close()
		return answer(w.sample)
	}
	return errors.New("expected operands FOLDER M N K, calibrate THREADS or KIND FOLDER THREADS")
}

// answer writes a line of JSON for every line of standard input.
func answer(f func(line string) (any, error)) error {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		v, err := f(in.Text())
		if err != nil {
			return err
		}
		if err := out.Encode(v); err != nil {
			return err
		}
	}
	return in.Err()
}

func writeOperands(folder string, sizes []string) error {
	var n [3]int
	for i, s := range sizes {
		v, err := strconv.Atoi(s)
		if err != nil || v < 1 {
			return fmt.Errorf("size %q, expected a positive number", s)
		}
		n[i] = v
	}
	for i, m := range [][2]int{{n[0], n[2]}, {n[2], n[1]}} {
		r := rng.New(1, "bench gemm", uint64(i))
		data := make([]byte, 0, 4*m[0]*m[1])
		for range m[0] * m[1] {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(2*r.Float32()-1))
		}
		if err := os.WriteFile(operand(folder, "ab"[i:i+1], m[0], m[1]), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

func operand(folder, name string, rows, cols int) string {
	return filepath.Join(folder, fmt.Sprintf("%s-%dx%d.bin", name, rows, cols))
}

func readMatrix(folder, name string, rows, cols int) (gemm.Mat, error) {
	file := operand(folder, name, rows, cols)
	raw, err := os.ReadFile(file)
	if err != nil {
		return gemm.Mat{}, err
	}
	if len(raw) != 4*rows*cols {
		return gemm.Mat{}, fmt.Errorf("%s: %d bytes, expected %d", file, len(raw), 4*rows*cols)
	}
	data := make([]float32, rows*cols)
	for i := range data {
		data[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return gemm.Dense(data, rows, cols), nil
}

// worker times products of one kind; the operands of the last size stay loaded.
type worker struct {
	kind, folder string
	pool         *par.Pool
	m, n, k      int
	c            gemm.Mat
	product      func()
}

func (w *worker) sample(line string) (any, error) {
	var m, n, k int
	var seconds float64
	if _, err := fmt.Sscan(line, &m, &n, &k, &seconds); err != nil {
		return nil, fmt.Errorf("line %q: %w, expected M N K SECONDS", line, err)
	}
	if m != w.m || n != w.n || k != w.k {
		if err := w.load(m, n, k); err != nil {
			return nil, err
		}
		w.product()
	}
	var times []float64
	for began := time.Now(); len(times) < 2 || time.Since(began).Seconds() < seconds; {
		start := time.Now()
		w.product()
		times = append(times, time.Since(start).Seconds())
	}
	slices.Sort(times)
	c := w.c.Data
	return map[string]any{"seconds": times[len(times)/2], "corners": []float32{c[0], c[n-1], c[(m-1)*n], c[m*n-1]}}, nil
}

func (w *worker) load(m, n, k int) error {
	a, err := readMatrix(w.folder, "a", m, k)
	if err != nil {
		return err
	}
	b, err := readMatrix(w.folder, "b", k, n)
	if err != nil {
		return err
	}
	w.m, w.n, w.k, w.c = m, n, k, gemm.Dense(make([]float32, m*n), m, n)
	o := gemm.Options{Work: make([]float32, gemm.WorkFloats(m, n, k))}
	switch w.kind {
	case "float32", "bf16":
		o.BF16 = w.kind == "bf16"
		w.product = func() { gemm.Mul(w.pool, w.c, 1, a, b, o) }
	case "float32-packed", "bf16-packed":
		packed := gemm.Pack
		if w.kind == "bf16-packed" {
			packed = gemm.PackBF16
		}
		p := packed(w.pool, b)
		w.product = func() { gemm.MulPacked(w.pool, w.c, 1, a, p, o) }
	case "int8", "int4":
		format, err := quant.ParseFormat(w.kind)
		if err != nil {
			return err
		}
		transposed := make([]float32, n*k)
		for i := range k {
			for j := range n {
				transposed[j*k+i] = b.Data[i*n+j]
			}
		}
		q := quant.Quantize(w.pool, format, transposed, n, k)
		var rows quant.Rows
		w.product = func() {
			rows.Set(w.pool, a.Data, m, k)
			quant.Mul(w.pool, w.c.Data, &rows, q, quant.Epilogue{})
		}
	default:
		return fmt.Errorf("kind %q, expected float32, bf16, float32-packed, bf16-packed, int8 or int4", w.kind)
	}
	return nil
}

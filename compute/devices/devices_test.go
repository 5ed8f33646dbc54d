package devices

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"autodev/compute"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Spec{"auto": {Kind: Auto}, "cpu": {Kind: CPU}, "cuda": {Kind: CUDA}, "cuda:0": {Kind: CUDA}, "cuda:12": {CUDA, 12}} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s", s, got)
		}
	}
	for _, s := range []string{"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda:+1", "cuda:256", "cpu:1", "auto:0", "cuda:1 "} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), "expected auto, cpu, cuda or cuda:INDEX") {
			t.Errorf("%q: error %v", s, err)
		}
	}
}

func TestOpen(t *testing.T) {
	for _, k := range []Kind{Auto, CPU} {
		d, err := Open(t.Context(), Spec{Kind: k}, Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if k == CPU && d.Spec.Kind != CPU || d.Spec.Kind == Auto || d.Name() == "" {
			t.Errorf("%s: opened %v, %s", k, d.Spec, d.Name())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(t.Context(), Spec{Kind: CUDA, Index: 200}, Options{}); !errors.Is(err, ErrNoCUDA) {
		t.Errorf("error %v", err)
	}
}

func TestStorage(t *testing.T) {
	for _, c := range []struct {
		k     Kind
		short bool
		want  compute.Storage
	}{{CPU, false, compute.Uniform(compute.F32)}, {CPU, true, compute.Uniform(compute.F32)}, {CUDA, false, compute.Uniform(compute.F32)}, {CUDA, true, compute.Mixed(compute.BF16)}} {
		if got := Storage(c.k, c.short); got != c.want {
			t.Errorf("%s, short %v: %v, expected %v", c.k, c.short, got, c.want)
		}
	}
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is known to say how much memory there is")
	}
	if n := Memory(); n < 64<<20 || n > 1<<50 {
		t.Errorf("this machine has %d bytes of memory", n)
	}
}

package runtime

import (
	"testing"

	"autodev/compute/cpu/par"
)

func TestCalibrate(t *testing.T) {
	c := Calibrate(1)
	t.Logf("%+v", c)
	// Bounds that any machine of the last twenty years keeps, and none will reach soon.
	if c.Threads != 1 || c.Read < 0.1 || c.Read > 1e4 || c.FMA < 0.01 || c.FMA > 1e5 {
		t.Errorf("%+v is no calibration", c)
	}
	// Where there are instructions for narrow numbers, they do more operations than float32's; 1.5 leaves room for noise.
	if c.BF16 != 0 && c.BF16 < 0.75*c.FMA || c.Int8 != 0 && c.Int8 < 1.5*c.FMA {
		t.Errorf("%+v: narrow numbers are slower than float32", c)
	}
	p := par.New(1)
	defer p.Close()
	if r := multiplyLoop().rate(p); r < 0.01 || limitLoops().fma.run != nil && r > 1.5*c.FMA {
		t.Errorf("products of matrices at %v GFLOP/s, instructions at %v", r, c.FMA)
	}
}

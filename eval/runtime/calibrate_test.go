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
	l := limitLoops()
	if l.bf16.run != nil != (c.BF16 > 0.01) || l.int8.run != nil != (c.Int8 > 0.01) {
		t.Errorf("%+v: expected rates of the instructions that there are", c)
	}
	p := par.New(1)
	defer p.Close()
	if r := multiplyLoop().rate(p); r < 0.01 || r > 1e5 {
		t.Errorf("products of matrices at %v GFLOP/s", r)
	}
}

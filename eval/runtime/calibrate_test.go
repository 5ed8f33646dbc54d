package runtime

import "testing"

func TestCalibrate(t *testing.T) {
	c := Calibrate(1)
	t.Logf("%+v", c)
	// Bounds that any machine of the last twenty years keeps, and none will reach soon.
	if c.Threads != 1 || c.Read < 0.1 || c.Read > 1e4 || c.FMA < 0.01 || c.FMA > 1e5 {
		t.Errorf("%+v is no calibration", c)
	}
}

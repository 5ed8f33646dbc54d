package standin

import (
	"strings"
	"testing"
)

func TestPlantNamesAFile(t *testing.T) {
	u, err := collect("../kernels", nil, "layernorm.cu:block_sum_barrier")
	if err != nil {
		t.Fatal(err)
	}
	planted := 0
	for _, f := range u.files {
		if f.plant != "" {
			planted++
			if f.name != "layernorm.cu" || f.plant != "block_sum_barrier" {
				t.Errorf("%s has the bug %q", f.name, f.plant)
			}
		}
	}
	if planted != 1 {
		t.Errorf("%d files have the bug, expected 1", planted)
	}
	some, err := collect("../kernels", []string{"layernorm.cu"}, "")
	if err != nil {
		t.Fatal(err)
	}
	kernels := 0
	for _, f := range some.files {
		if strings.HasSuffix(f.name, ".cu") {
			kernels++
		}
	}
	if kernels != 1 || len(u.files) <= len(some.files) {
		t.Errorf("%d kernels, expected 1", kernels)
	}
}

package standin

import "testing"

func TestPlantNamesAFile(t *testing.T) {
	u, err := collect("../kernels", "layernorm.cu:block_sum_barrier")
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
}

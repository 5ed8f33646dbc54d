package devices

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind is a kind of device. The kind, not the device, is what the bits of a run depend on.
type Kind string

const (
	// Auto is CUDA if a usable card is found, else the CPU.
	Auto Kind = "auto"
	CPU  Kind = "cpu"
	CUDA Kind = "cuda"
)

// Spec says which device is wanted.
type Spec struct {
	Kind  Kind
	Index int // of several cards, as the driver counts them
}

// Expected is what Parse takes, for messages.
const Expected = "auto, cpu, cuda or cuda:INDEX"

// Parse reads a device's text: auto, cpu, cuda or cuda:INDEX.
func Parse(s string) (Spec, error) {
	switch Kind(s) {
	case Auto, CPU, CUDA:
		return Spec{Kind: Kind(s)}, nil
	}
	if index, ok := strings.CutPrefix(s, string(CUDA)+":"); ok {
		if n, err := strconv.ParseUint(index, 10, 8); err == nil && strconv.FormatUint(n, 10) == index {
			return Spec{CUDA, int(n)}, nil
		}
	}
	return Spec{}, fmt.Errorf("device %q, expected %s", s, Expected)
}

func (s Spec) String() string {
	if s.Index == 0 {
		return string(s.Kind)
	}
	return fmt.Sprintf("%s:%d", s.Kind, s.Index)
}

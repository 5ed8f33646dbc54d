package compute

import "fmt"

// RangeError says that an element of an integer operand (ids, positions, targets, docStart) is outside what it may be.
type RangeError struct {
	Operand  string
	Index    int // position of the element in the operand
	Value    int32
	Min, Max int // what the element may be, inclusive
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%s[%d] is %d, expected %d to %d", e.Operand, e.Index, e.Value, e.Min, e.Max)
}

// CheckIDs reports the first id outside 0 to limit−1 as a *RangeError.
func CheckIDs(operand string, ids []int32, limit int) error {
	for i, id := range ids {
		if id < 0 || int(id) >= limit {
			return &RangeError{operand, i, id, 0, limit - 1}
		}
	}
	return nil
}

// CheckTargets reports the first target that is limit or more as a *RangeError; negative targets mean "not scored".
func CheckTargets(targets []int32, limit int) error {
	for i, t := range targets {
		if int(t) >= limit {
			return &RangeError{"targets", i, t, -1, limit - 1}
		}
	}
	return nil
}

// CheckDocStart reports the first document start that is negative or after its own token as a *RangeError.
func CheckDocStart(docStart []int32, seq int) error {
	for i, s := range docStart {
		if t := i % seq; s < 0 || int(s) > t {
			return &RangeError{"docStart", i, s, 0, t}
		}
	}
	return nil
}

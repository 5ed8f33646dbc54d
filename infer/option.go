package infer

import (
	"fmt"
	"slices"
	"strings"
)

// OptionError is a request's option that cannot be honoured. Option is its name on the wire.
type OptionError struct{ Option, Problem string }

func (e *OptionError) Error() string { return e.Option + ": " + e.Problem }

// parseName reads the value of an option that is one of some names; "" is the standard one.
func parseName[T ~string](option string, s, standard T, known []T) (T, error) {
	switch {
	case s == "":
		return standard, nil
	case slices.Contains(known, s):
		return s, nil
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	last := len(names) - 1
	return "", &OptionError{option, fmt.Sprintf("found %q, expected %s or %s", string(s), strings.Join(names[:last], ", "), names[last])}
}

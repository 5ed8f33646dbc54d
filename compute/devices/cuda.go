package devices

import (
	"context"
	"errors"
)

// ErrNoCUDA reports that a card was asked for where none can be used.
var ErrNoCUDA = errors.New("device cuda: this build computes on the CPU only, expected device auto or cpu")

// findCUDA reports why card number index cannot be used, nil if it can.
func findCUDA(context.Context, int) error { return ErrNoCUDA }

// openCUDA opens the card that s says.
func openCUDA(ctx context.Context, s Spec) (*Device, error) { return nil, findCUDA(ctx, s.Index) }

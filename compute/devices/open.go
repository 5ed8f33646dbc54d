package devices

import (
	"context"
	"fmt"
	"log/slog"

	"autodev/compute"
	"autodev/compute/cpu"
)

// Device is an open device.
type Device struct {
	compute.Device
	Spec  Spec // never Auto
	close func() error
}

// Close gives the device back. Memory allocated on it must have been freed.
func (d *Device) Close() error { return d.close() }

// Options are what opening a device needs beside its Spec.
type Options struct {
	Threads int // of the CPU; 0 takes all
	// Fits says, when a card's memory is too small, what would fit into its free bytes; may be nil.
	Fits func(free int64) string
	// Lost is told once that the card is lost, which all that use it are told as well; may be nil.
	Lost func(error)
}

// Resolve settles what Auto means on this machine and reports a device that is not there. Where Auto is the CPU, log is told why:
// for debugging alone where there is no driver and none was named.
func Resolve(s Spec, log *slog.Logger) (Spec, error) {
	switch s.Kind {
	case Auto:
		err := findCUDA(0)
		if err == nil {
			return Spec{Kind: CUDA}, nil
		}
		level := slog.LevelDebug
		if !noDriver(err) {
			level = slog.LevelInfo // a card may have been expected
		}
		log.Log(context.Background(), level, "no CUDA device: computing on the CPU", "reason", whyNot(err))
		return Spec{Kind: CPU}, nil
	case CUDA:
		return s, findCUDA(s.Index)
	}
	return s, nil
}

// Model is what a device must have kernels for.
type Model struct {
	HeadDim  int
	Training bool // not inference alone
}

// Check reports that the device that s says, which Resolve has settled, cannot compute a model, whatever memory it has.
func Check(s Spec, m Model) error {
	if s.Kind == CUDA {
		return checkCUDA(s.Index, m)
	}
	return nil
}

// Open opens the device that s says, which Resolve has settled.
func Open(s Spec, o Options) (*Device, error) {
	switch s.Kind {
	case CUDA:
		return openCUDA(s, o)
	case CPU:
		d := cpu.New(cpu.Options{Threads: o.Threads})
		return &Device{Device: d, Spec: s, close: func() error { d.Close(); return nil }}, nil
	}
	return nil, fmt.Errorf("device %s is not settled yet", s)
}

// Short returns the short type that the device that s says multiplies in: BF16, which processors emulate where they lack it, or F16 on cards
// before compute capability 8.0.
func Short(s Spec) compute.DType {
	if s.Kind == CUDA {
		return shortCUDA(s.Index)
	}
	return compute.BF16
}

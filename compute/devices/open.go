package devices

import (
	"context"

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
}

// Resolve settles what Auto means on this machine and reports a device that is not there.
func Resolve(ctx context.Context, s Spec) (Spec, error) {
	switch s.Kind {
	case Auto:
		if findCUDA(ctx, 0) == nil {
			return Spec{Kind: CUDA}, nil
		}
		return Spec{Kind: CPU}, nil
	case CUDA:
		return s, findCUDA(ctx, s.Index)
	}
	return s, nil
}

// Open opens the device that s says, which Resolve has settled or settles now.
func Open(ctx context.Context, s Spec, o Options) (*Device, error) {
	s, err := Resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.Kind == CUDA {
		return openCUDA(ctx, s)
	}
	d := cpu.New(cpu.Options{Threads: o.Threads})
	return &Device{Device: d, Spec: s, close: func() error { d.Close(); return nil }}, nil
}

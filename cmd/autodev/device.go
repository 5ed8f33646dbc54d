package main

import (
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
	"autodev/infer"
	"autodev/model/packed"
)

// deviceFlag chooses where a model computes.
func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "`DEVICE` to compute on: " + devices.Expected + " (auto: cuda where there is a card that can do what is asked)", Value: string(devices.Auto)}
}

// parseDevice reads --device.
func parseDevice(text string) (devices.Spec, error) {
	s, err := devices.Parse(text)
	if err != nil {
		return s, usageError("--device %s: expected %s", text, devices.Expected)
	}
	return s, nil
}

// on settles where f runs, and what follows from it: on a card weights are kept in bf16 unless something else is asked for, which
// label then says. Auto is the processor too where a card knows no such weights, keys or values.
func (f inference) on(s devices.Spec) (inference, error) {
	o := infer.Options{Weights: f.weights, Cache: f.cache}
	if o.Weights == "" && isPacked(f.model) {
		_, q, err := packed.ReadConfig(os.DirFS(f.model), f.model)
		if err != nil {
			return f, err
		}
		o.Weights = infer.Weights(q.Weights)
	}
	auto := s.Kind == devices.Auto
	var err error
	// That there is no card is what most machines are like, and not worth a line of every completion.
	if o.Device, err = devices.Resolve(s, slog.New(slog.DiscardHandler)); err != nil {
		return f, err
	}
	settled, err := o.Settle()
	if option := (*infer.OptionError)(nil); errors.As(err, &option) {
		if !auto {
			return f, usageError("--%s: %s", strings.ReplaceAll(option.Option, "_", "-"), option.Problem)
		}
		slog.Info("computing on the CPU", "reason", err)
		settled, err = o, nil
		settled.Device = devices.Spec{Kind: devices.CPU}
	}
	f.device = settled.Device
	if f.device.Kind == devices.CUDA && !isPacked(f.model) {
		f.weights = settled.Weights
	}
	return f, err
}

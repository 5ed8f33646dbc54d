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
// label then says. Auto is the processor too where a card has nothing for such weights, keys or values, or for the model.
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
	if err == nil {
		err = f.suits(o.Device)
	}
	option := (*infer.OptionError)(nil)
	switch {
	case err != nil && auto && o.Device.Kind == devices.CUDA:
		toCPU(err)
		settled, err = o, nil
		settled.Device = devices.Spec{Kind: devices.CPU}
	case errors.As(err, &option):
		return f, optionMisuse(option)
	}
	f.device = settled.Device
	f.fallback = auto && f.device.Kind == devices.CUDA
	if f.device.Kind == devices.CUDA && !isPacked(f.model) {
		f.weights = settled.Weights
	}
	return f, err
}

// suits reports that s cannot compute the model.
func (f inference) suits(s devices.Spec) error {
	if s.Kind != devices.CUDA {
		return nil
	}
	c, err := modelConfig(f.model)
	if err != nil {
		return nil // opening the model reports it
	}
	return devices.Check(s, devices.Model{HeadDim: c.HeadDim()})
}

// optionMisuse is an option of a model as its flag.
func optionMisuse(o *infer.OptionError) error {
	return usageError("--%s: %s", strings.ReplaceAll(o.Option, "_", "-"), o.Problem)
}

// toCPU says why a device that was left open is not the card.
func toCPU(reason error) { slog.Info("computing on the CPU", "reason", reason) }

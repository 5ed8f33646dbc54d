package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
)

// deviceFlag chooses where a model computes.
func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "`DEVICE` to compute on: " + devices.Expected + "; inference has the cpu only", Value: string(devices.Auto)}
}

// inferenceDevice checks what deviceFlag says of a command that runs models, which is done on the processor: package infer has no kernels
// for cards. What is not possible must not be done elsewhere in silence.
func inferenceDevice(text string) error {
	s, err := devices.Parse(text)
	if err != nil {
		return usageError("--device %s: expected %s", text, devices.Expected)
	}
	if s.Kind == devices.CUDA {
		return fmt.Errorf("device %s: models are trained on cards, but run on the processor only: expected --device auto or cpu", s)
	}
	return nil
}

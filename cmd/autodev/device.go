package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
)

// deviceFlag chooses where a model computes.
func deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "`DEVICE` to compute on: " + devices.Expected, Value: string(devices.Auto)}
}

// openDevice settles what deviceFlag says on this machine. A device that is not there is an error.
func openDevice(ctx context.Context, text string) (devices.Spec, error) {
	s, err := devices.Parse(text)
	if err != nil {
		return s, usageError("--device %s: expected %s", text, devices.Expected)
	}
	return devices.Resolve(ctx, s)
}

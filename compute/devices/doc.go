// Package devices turns what a recipe's device or a command's --device says (auto, cpu, cuda, cuda:1) into a device, and says how
// plans for each kind keep their values.
//
//	spec.go      Spec: the text and what it means
//	open.go      Resolve, Check and Open: the one place where kinds of devices become devices
//	cuda.go      how a CUDA device is found and opened
//	target.go    what plans need to know of a kind of device: its work space, its storage
//	memory_*.go  the memory of this machine
//
// What must not live here: devices (compute/cpu, compute/cuda), models, flags.
package devices

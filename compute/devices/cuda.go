package devices

import (
	"errors"
	"os"

	"autodev/compute"
	"autodev/compute/cuda"
	"autodev/compute/cuda/dynlib"
)

// GraphsEnv is the environment variable that, set to 0, has CUDA's programs run call by call, so that an error names its call.
const GraphsEnv = "AUTODEV_CUDA_GRAPHS"

// WarpgroupsEnv is the environment variable that, set to 0, has cards of compute capability 9.0 run the kernels of 8.0.
const WarpgroupsEnv = "AUTODEV_CUDA_WARPGROUPS"

// EarlyEnv is the environment variable that, set to 0, lets no kernel begin before the one before it has ended.
const EarlyEnv = "AUTODEV_CUDA_EARLY"

// findCUDA reports why card number index cannot be used, nil if it can.
func findCUDA(index int) error {
	_, err := cuda.Find(cuda.Options{Index: index})
	return err
}

// checkCUDA reports what card number index has no kernels for.
func checkCUDA(index int, m Model) error {
	p, err := cuda.Find(cuda.Options{Index: index})
	if err != nil {
		return err
	}
	return p.CheckHeads(m.HeadDim, m.Training)
}

// openCUDA opens the card that s says.
func openCUDA(s Spec, o Options) (*Device, error) {
	d, err := cuda.New(cuda.Options{Index: s.Index, Fits: o.Fits, Lost: o.Lost, CallByCall: os.Getenv(GraphsEnv) == "0", NoWarpgroups: os.Getenv(WarpgroupsEnv) == "0", InTurn: os.Getenv(EarlyEnv) == "0"})
	if err != nil {
		return nil, err
	}
	return &Device{Device: d, Spec: s, close: d.Close}, nil
}

// noDriver says whether err is that this machine has no driver, and nobody has said that it should have one.
func noDriver(err error) bool {
	var missing *dynlib.NotFoundError
	driver := dynlib.CUDA().Env
	unknown := errors.Is(err, dynlib.ErrUnsupported) || errors.As(err, &missing) && missing.Spec.Env == driver
	return unknown && os.Getenv(driver) == ""
}

// whyNot says in a few words why there is no card: where libraries were looked for is left out.
func whyNot(err error) string {
	var missing *dynlib.NotFoundError
	if errors.As(err, &missing) {
		return missing.Spec.Names[0] + " was not found"
	}
	return err.Error()
}

// shortCUDA returns the short type that card number index multiplies in, F32 where there is no such card.
func shortCUDA(index int) compute.DType {
	p, err := cuda.Find(cuda.Options{Index: index})
	if err != nil {
		return compute.F32
	}
	return p.Short()
}

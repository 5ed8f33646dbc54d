package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Process measures in a fresh process, so that load time and peak memory are one variant's own: it runs command, which must
// end in Child, and speaks JSON with it.
func Process(command []string, env ...string) func(context.Context, Spec) (Sample, error) {
	return func(ctx context.Context, s Spec) (Sample, error) {
		in, err := json.Marshal(s)
		if err != nil {
			return Sample{}, err
		}
		var out, errOut bytes.Buffer
		c := exec.CommandContext(ctx, command[0], command[1:]...)
		// The Go runtime's own work, garbage collection above all, must not use more threads than the variant has.
		c.Env = append(append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", s.Threads)), env...)
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &errOut
		if err := c.Run(); err != nil {
			if ctx.Err() != nil {
				return Sample{}, context.Cause(ctx)
			}
			if text := strings.TrimSpace(errOut.String()); text != "" {
				return Sample{}, fmt.Errorf("%s: %s", s.Variant, text)
			}
			return Sample{}, fmt.Errorf("%s: measuring process: %w", s.Variant, err)
		}
		var sample Sample
		if err := json.Unmarshal(out.Bytes(), &sample); err != nil {
			return Sample{}, fmt.Errorf("%s: the measuring process answered %.100q: %w", s.Variant, out.String(), err)
		}
		return sample, nil
	}
}

// Child is the other side of Process: it reads a Spec, measures, and writes the Sample.
func Child(ctx context.Context, in io.Reader, out io.Writer, open Opener) error {
	var s Spec
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return fmt.Errorf("measuring process: %w", err)
	}
	sample, err := Measure(ctx, s, open)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(sample)
}

//go:build unix

package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"autodev/configs"
	"autodev/internal/rng"
)

// helperEnv makes this test binary a training process: it names the recipe file, the settings follow as arguments.
const helperEnv = "AUTODEV_TRAIN_HELPER"

func TestMain(m *testing.M) {
	recipe := os.Getenv(helperEnv)
	if recipe == "" {
		// The tests are about the processor, whatever the machine has: device auto finds no driver.
		if err := os.Setenv("AUTODEV_LIBCUDA", "none"); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r, err := configs.Load(recipe, os.Args[1:]...)
	if err == nil {
		o := options()
		o.Train, o.Eval = nil, nil
		_, err = Run(ctx, r, o)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process prepares a training process.
func process(recipe string, sets ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(os.Args[0], sets...)
	cmd.Env = append(os.Environ(), helperEnv+"="+recipe)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// jsonl writes documents as JSON lines.
func jsonl(t testing.TB, name string, first, n int) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range n {
		if err := enc.Encode(map[string]string{"content": text(first + i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// onDisk writes a recipe and its data to a folder and returns the recipe's name.
func onDisk(t testing.TB, yaml string, extra string) string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "recipe.yaml")
	yaml = strings.Replace(yaml, "  train: [{path: memory}]", fmt.Sprintf("  train: [{path: %s}]\n  eval: [{path: %s}]",
		jsonl(t, filepath.Join(dir, "train.jsonl"), 0, 60), jsonl(t, filepath.Join(dir, "eval.jsonl"), 100, 8)), 1)
	if err := os.WriteFile(name, []byte(yaml+extra), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// killPoints is how many kills each kind of run gets at least; some runs are killed once more while they resume.
const killPoints = 14

// A run killed with SIGKILL at any moment (opening, reading data, computing, measuring, writing a checkpoint, removing an old
// one) and called again leaves the same files as a run that was never disturbed.
func TestKillAndResume(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many processes")
	}
	m, tok := base(t), vocabulary(t)
	// More checkpoints than sensible, so that many kills hit their writing.
	often := []string{"train.steps=16", "checkpoint.every=2", "eval.every=3", "threads=1"}
	for name, c := range map[string]struct {
		recipe string
		sets   []string
	}{
		"full": {onDisk(t, fullRecipe, ""), append([]string{"init.tokenizer=" + tok}, often...)},
		"lora": {onDisk(t, loraRecipe, ""), append([]string{"model=" + m}, often...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := filepath.Join(t.TempDir(), "out")
			begun := time.Now()
			cmd, stderr := process(c.recipe, append(c.sets, "out="+want)...)
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, stderr)
			}
			whole := time.Since(begun)
			random := rng.New(uint64(begun.UnixNano()), "kill")
			killed, writing, resumed := 0, 0, 0
			for i := 0; killed < killPoints; i++ {
				if i == 8*killPoints {
					t.Fatalf("only %d kills in %d runs", killed, i)
				}
				out := filepath.Join(t.TempDir(), "out")
				sets := append(c.sets, "out="+out)
				for n := 0; ; n++ {
					if n > 50 {
						t.Fatal("the run never ends")
					}
					cmd, stderr := process(c.recipe, sets...)
					begun := time.Now()
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					done := make(chan error, 1)
					go func() { done <- cmd.Wait() }()
					// The first kill is spread evenly over a run's length, a second one falls anywhere; then the run may end.
					var timer <-chan time.Time
					switch {
					case n == 0:
						timer = time.After(time.Duration((float64(i%killPoints) + random.Float64()) / killPoints * float64(whole)))
					case n == 1 && i%3 == 0:
						timer = time.After(time.Duration(random.Float64() * float64(whole)))
					}
					var err error
					select {
					case err = <-done:
					case <-timer:
						if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
							t.Fatal(err)
						}
						err = <-done
					}
					if err == nil {
						if n == 0 {
							// The machine's speed changes while others work on it.
							whole = time.Since(begun)
						}
						break
					}
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("%v: %s", err, stderr)
					}
					killed++
					if left, _ := filepath.Glob(filepath.Join(out, ".*.tmp-*")); len(left) > 0 {
						writing++
					}
					if s, _, err := newestState(out, t.Logf); err != nil {
						t.Errorf("after a kill: %v", err)
					} else if s != nil {
						resumed++
					}
				}
				sameTree(t, out, want)
				if left, _ := filepath.Glob(filepath.Join(out, ".*")); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
			t.Logf("%d kills in runs of %v: %d while a folder was being written or removed, %d with a checkpoint to resume from", killed, whole.Round(time.Millisecond), writing, resumed)
		})
	}
}

// SIGTERM saves the last step and says so.
func TestTerminate(t *testing.T) {
	recipe := onDisk(t, fullRecipe, "")
	out := filepath.Join(t.TempDir(), "out")
	sets := []string{"init.tokenizer=" + vocabulary(t), "out=" + out, "train.steps=100000", "checkpoint.every=0", "eval.every=0"}
	cmd, stderr := process(recipe, sets...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		if b, err := os.ReadFile(filepath.Join(out, RecordFile)); err == nil && bytes.Count(b, []byte("\n")) > 10 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	// Meanwhile the folder is not to be had.
	if cmd, stderr := process(recipe, sets...); cmd.Run() == nil || !strings.Contains(stderr.String(), "out: another run is writing to "+out) {
		t.Errorf("a second run: %s", stderr)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "the same command goes on from there") {
		t.Fatalf("%v: %s", err, stderr)
	}
	s, dir, err := newestState(out, t.Logf)
	if err != nil || s == nil {
		t.Fatalf("no checkpoint: %v", err)
	}
	if !strings.Contains(stderr.String(), fmt.Sprintf("interrupted after step %d, which is saved in %s;", s.Step, dir)) {
		t.Errorf("message %q", stderr)
	}
	es := readRecord(t, out)
	if last := es[len(es)-1].Step; last != s.Step {
		t.Errorf("the record ends with step %d, the checkpoint is of step %d", last, s.Step)
	}
}

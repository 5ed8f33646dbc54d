package par

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestMain turns this program into a busy neighbour when it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("AUTODEV_TEST_SPIN") != "" {
		runtime.GOMAXPROCS(1)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			spin(1000)
		}
		return
	}
	os.Exit(m.Run())
}

// spin computes for about n nanoseconds' worth of additions.
func spin(n int) {
	var x uint32
	for i := range n {
		x = x*1664525 + uint32(i)
	}
	keep(x)
}

// keep makes its argument count as used.
//
//go:noinline
func keep(uint32) {}

// BenchmarkHandOff is the cost of a region of as many items as threads, with nothing in them.
func BenchmarkHandOff(b *testing.B) {
	p := New(2)
	defer p.Close()
	for b.Loop() {
		p.Run(2, func(int) {})
	}
}

// BenchmarkDecode runs what a token's products are like: 100 regions of 50 items of about 2 µs, the caller being alone between
// them for 2 µs. Beside a process that computes all the time it should take at most twice as long.
func BenchmarkDecode(b *testing.B) {
	token := func(p *Pool) {
		for range 100 {
			p.Run(50, func(int) { spin(2000) })
			spin(2000)
		}
	}
	for _, c := range []struct {
		name       string
		neighbours int
	}{{"quiet", 0}, {"busy", 1}} {
		b.Run(c.name, func(b *testing.B) {
			for range c.neighbours {
				program, err := os.Executable()
				if err != nil {
					b.Fatal(err)
				}
				cmd := exec.Command(program)
				cmd.Env = append(os.Environ(), "AUTODEV_TEST_SPIN=1")
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				}()
			}
			p := New(2)
			defer p.Close()
			for b.Loop() {
				token(p)
			}
		})
	}
}

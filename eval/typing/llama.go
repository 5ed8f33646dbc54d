package typing

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// LlamaOptions say how llama.cpp's server is started.
type LlamaOptions struct {
	Program, Model string
	Threads        int
	Context        int
	SPM            bool
	Args           []string // more of its own
}

// Llama is llama.cpp's server under way.
type Llama struct {
	URL    string
	cancel context.CancelFunc
	ended  chan error
}

// StartLlama starts llama.cpp's server, with one slot, and waits until it has loaded its model.
func StartLlama(ctx context.Context, o LlamaOptions) (*Llama, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}
	args := []string{
		"-m", o.Model, "-c", strconv.Itoa(o.Context), "-np", "1", "-t", strconv.Itoa(o.Threads), "-tb", strconv.Itoa(o.Threads),
		"--host", "127.0.0.1", "--port", strconv.Itoa(port), "--metrics",
	}
	if o.SPM {
		args = append(args, "--spm-infill")
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, o.Program, append(args, o.Args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	// Its libraries stand beside it.
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(o.Program)+string(os.PathListSeparator)+os.Getenv("LD_LIBRARY_PATH"))
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("llama.cpp's server: %w", err)
	}
	s := &Llama{URL: fmt.Sprintf("http://127.0.0.1:%d", port), cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }()
	c := newClient(s.URL)
	defer c.http.CloseIdleConnections()
	for deadline := time.Now().Add(3 * time.Minute); ; {
		if _, err := c.get(ctx, "/health"); err == nil {
			return s, nil
		}
		select {
		case err := <-s.ended:
			cancel()
			return nil, fmt.Errorf("llama.cpp's server ended (%v): %s", err, said.text())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Close()
			return nil, fmt.Errorf("llama.cpp's server is not ready after 3 minutes: %s", said.text())
		}
	}
}

// Close ends the server.
func (s *Llama) Close() {
	s.cancel()
	<-s.ended
}

// CountLlama returns what a server of llama.cpp's has done, which one started with --metrics tells.
func CountLlama(url string) func(context.Context) (Count, error) {
	c := newClient(url)
	return func(ctx context.Context) (n Count, err error) {
		text, err := c.get(ctx, "/metrics")
		c.http.CloseIdleConnections()
		if err != nil {
			return n, err
		}
		n.Prompt, err = metric(text, "llamacpp:prompt_tokens_total")
		if err == nil {
			n.Generated, err = metric(text, "llamacpp:tokens_predicted_total")
		}
		return n, err
	}
}

// metric reads a counter of Prometheus's text format.
func metric(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name+" ")
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		return int64(v), nil
	}
	return 0, fmt.Errorf("metric %s: missing", name)
}

// tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 2000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(p), nil
}

// text returns the last lines.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-5):], []byte("; ")))
}

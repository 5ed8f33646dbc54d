//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSupervisedServer: a hangup while the model loads does not end a server but has the model read again; a supervisor hears when
// it is ready.
func TestSupervisedServer(t *testing.T) {
	dir, socket := smallModel(t), filepath.Join(t.TempDir(), "notify")
	supervisor, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer supervisor.Close()
	// Loading waits for whoever writes to this pipe.
	config := filepath.Join(dir, "tokenizer_config.json")
	_ = os.Remove(config)
	if err := syscall.Mkfifo(config, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	s := &server{cmd: process(t, "serve", "--listen", "127.0.0.1:0", "--model", dir, "--threads", "1"), errs: &bytes.Buffer{}}
	log, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.cmd.Process.Kill()
	pipe, err := os.OpenFile(config, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(config), os.WriteFile(config, []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.WriteString("{}"); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if err := supervisor.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	state := make([]byte, 64)
	if n, err := supervisor.Read(state); err != nil || string(state[:n]) != "READY=1" {
		t.Errorf("the supervisor hears %q, %v; expected READY=1", state[:n], err)
	}
	reloaded := false
	for lines := bufio.NewScanner(io.TeeReader(log, s.errs)); !reloaded && lines.Scan(); {
		reloaded = strings.Contains(lines.Text(), "msg=reload ")
	}
	if !reloaded {
		t.Fatalf("no reload in the log:\n%s", s.errs)
	}
	stop(t, s)
}

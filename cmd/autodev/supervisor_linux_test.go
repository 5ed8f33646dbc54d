package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	// Loading waits at this file for the end of the lease.
	config, err := os.OpenFile(filepath.Join(dir, "tokenizer_config.json"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer config.Close()
	if _, err := config.WriteString("{}"); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(config.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("SKIPPED: the file system of temporary files has no leases: %v", err)
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
	for waited := time.Now(); ; time.Sleep(time.Millisecond) {
		// Somebody who opens the file shows in the lease.
		if held, err := unix.FcntlInt(config.Fd(), unix.F_GETLEASE, 0); err != nil {
			t.Fatal(err)
		} else if held != unix.F_WRLCK {
			break
		}
		if time.Since(waited) > 30*time.Second {
			t.Fatal("the model is not read")
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(config.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
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

//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups catches the signals by which daemons are told to read their files again, until stop is called. They end a process that
// does not catch them.
func hangups() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

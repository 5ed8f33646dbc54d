package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// misuse is an error of the command line itself: exit code 2.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

// usageError reports that the command was called wrongly.
func usageError(format string, args ...any) error { return misuse{fmt.Errorf(format, args...)} }

// printable returns s with spaces for what is not printed: names and texts that come from files must not steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// Exit codes: 1 for failure, 2 for misuse, 130 when interrupted.
const (
	exitFailure   = 1
	exitMisuse    = 2
	exitInterrupt = 130
)

// report prints err, of a command that ran under ctx, in one line and returns the exit code that says what kind it is.
func report(ctx context.Context, w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	// Joined errors, and some of YAML's, have a line each.
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	message := printable(strings.Join(lines, "; "))
	if errors.Is(err, context.Canceled) {
		// Some look at the context's error, some at its cause, which names the signal.
		message = strings.ReplaceAll(message, context.Canceled.Error(), "interrupted")
		if cause := context.Cause(ctx); cause != nil {
			message = strings.ReplaceAll(message, cause.Error(), "interrupted")
		}
	}
	fmt.Fprintln(w, "autodev:", message)
	var m misuse
	switch {
	case errors.As(err, &m):
		return exitMisuse
	case errors.Is(err, context.Canceled):
		return exitInterrupt
	}
	return exitFailure
}

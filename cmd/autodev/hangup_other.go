//go:build !unix

package main

import (
	"context"
	"log/slog"
)

// reloadOnHangup does nothing: there is no such signal.
func reloadOnHangup(context.Context, reloader, *slog.Logger) (stop func()) { return func() {} }

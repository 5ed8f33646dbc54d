package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/serve/guard"
)

func healthCommand() *cli.Command {
	return &cli.Command{
		Name:  "health",
		Usage: "ask a server whether it is well: exit code 0 or 1, for supervisors and containers",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "at", Usage: "`ADDRESS` of the server, as serve --listen has it", Value: "127.0.0.1:8000"},
			&cli.BoolFlag{Name: "tls", Usage: "the server speaks https; its certificate, which is for another name, is not checked"},
			&cli.BoolFlag{Name: "ready", Usage: "ask whether it takes requests, which it does not while it loads or stops"},
			&cli.DurationFlag{Name: "timeout", Usage: "`TIME` to wait for an answer", Value: 3 * time.Second},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("health: found argument %q, expected flags only", c.Args().First())
			}
			at := c.String("at")
			if err := guard.CheckAddr(at); err != nil {
				return usageError("--at %w", err)
			}
			path := "/healthz"
			if c.Bool("ready") {
				path = "/readyz"
			}
			ctx, stop := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer stop()
			answer, err := askHealth(ctx, at, path, c.Bool("tls"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, answer)
			return err
		},
	}
}

// askHealth returns a server's answer, which is an error unless all is well.
func askHealth(ctx context.Context, at, path string, secure bool) (string, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		if socket, ok := strings.CutPrefix(at, "unix:"); ok {
			return d.DialContext(ctx, "unix", socket)
		}
		return d.DialContext(ctx, "tcp", at)
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, // nothing is told or believed but whether it answers
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("health of %s: %w", at, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("health of %s: %w", at, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("health of %s: %s: %s", at, resp.Status, strings.TrimSpace(string(body)))
	}
	return strings.TrimSpace(string(body)), nil
}

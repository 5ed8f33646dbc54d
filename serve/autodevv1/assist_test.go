package autodevv1_test

import (
	"context"
	"strings"
	"testing"

	"autodev/configs"
	"autodev/infer"
	"autodev/serve/assist"
	"autodev/serve/autodevv1"
	"autodev/serve/servetest"
)

var _ autodevv1.Assist = (*assist.Service)(nil)

// TestRealFunctions: the functions of this project behind the original's paths.
func TestRealFunctions(t *testing.T) {
	service, err := assist.Open(configs.Assist{Default: assist.LocalBackend}, true)
	if err != nil {
		t.Fatal(err)
	}
	answer := ""
	engine := &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for _, c := range answer {
			if emit != nil {
				if err := emit(0, infer.Chunk{Text: string(c)}); err != nil {
					return nil, err
				}
			}
		}
		return []infer.Result{{Text: answer, FinishReason: infer.FinishStop}}, nil
	}}
	server := start(t, engine, service, nil)
	answer = "It sets <b>x</b> & more.\n"
	for _, request := range []string{javaClient("/fn/explain", "code", "x = 1\n"), apacheClient("/fn/stream/review", "code", "x = 1\n"), apacheClient("/fn/stream/potential-problems", "code", "x = 1\n")} {
		resp, body, err := replay(t, server, request)
		if err != nil || resp.StatusCode != 200 || !strings.Contains(body, "&lt;b&gt;x&lt;/b&gt; &amp; more.") || strings.Contains(body, "<b>") {
			t.Errorf("%.30s: %d %q %v", request, resp.StatusCode, body, err)
		}
	}
	answer = "x = 2  # one more\n```\nThat is all.\n"
	for _, request := range []string{javaClient("/fn/improve-code", "code", "    x = 1\n"), apacheClient("/fn/stream/input-checks", "code", "    x = 1\n"), apacheClient("/fn/stream/add-docstrings", "code", "    x = 1\n")} {
		resp, body, err := replay(t, server, request)
		if err != nil || resp.StatusCode != 200 || body != "    x = 2  # one more\n" {
			t.Errorf("%.30s: %d %q %v", request, resp.StatusCode, body, err)
		}
	}
	// Without code in the answer the selection stays what it was.
	answer = "```\n"
	for _, request := range []string{javaClient("/fn/improve-code", "code", "    x = 1\n"), apacheClient("/fn/stream/input-checks", "code", "    x = 1\n")} {
		resp, body, err := replay(t, server, request)
		if err != nil || resp.StatusCode != 422 || body != "    x = 1\n" {
			t.Errorf("%.30s: %d %q %v", request, resp.StatusCode, body, err)
		}
	}
	for _, fn := range []string{"document", "find-problems", "review", "improve", "explain", "write-tests", "add-input-checks"} {
		if service.Function(fn) == nil {
			t.Errorf("there is no function %s", fn)
		}
	}
}

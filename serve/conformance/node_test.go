package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"autodev/models"
)

// clients returns a folder from which the scripts of testdata/clients find what npm has installed.
func clients(t *testing.T) string {
	t.Helper()
	installed := os.Getenv("AUTODEV_NODE_CLIENTS")
	if installed == "" {
		t.Skip("AUTODEV_NODE_CLIENTS is not set: no folder in which npm has installed the clients of testdata/clients")
	}
	modules, err := filepath.Abs(filepath.Join(installed, "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules); err != nil {
		t.Fatalf("AUTODEV_NODE_CLIENTS: %v, expected what `npm ci` installs", err)
	}
	dir := t.TempDir()
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("testdata/clients/*.mjs")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("testdata/clients: %v, %d scripts", err, len(scripts))
	}
	for _, s := range scripts {
		b, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(s)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestNodeClients: each script drives the server with one package and checks what it gets against what the engine itself says.
func TestNodeClients(t *testing.T) {
	dir := clients(t)
	for _, c := range []struct{ name, first string }{
		{"openai", "random"}, {"mistral", "random"}, {"continue", "random"}, {"ollama", "random"}, {"tabby", models.Tiny}, {"tabby", "stuck"},
	} {
		t.Run(c.name+" "+c.first, func(t *testing.T) {
			s := start(t, c.first)
			arg, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "node", c.name+".mjs", string(arg))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "NO_PROXY=*")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "all checks passed\n") {
				t.Errorf("%v\n%s", err, out)
			}
			s.idle(t)
		})
	}
}

package admin_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/serve"
	"autodev/serve/admin"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

type engine struct{ loaded map[string]string }

func (e *engine) LoadAdapter(_ context.Context, name, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "adapter_config.json")); err != nil {
		return err
	}
	e.loaded[name] = dir
	return nil
}

func (e *engine) UnloadAdapter(name string) error { delete(e.loaded, name); return nil }

func TestRoutes(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(root, "ruby"), outside} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "adapter_config.json"), nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	opens := 0
	models, e := registry.New(true), &engine{map[string]string{}}
	m, err := registry.NewManager(t.Context(), models, func(context.Context) (registry.Loaded, error) {
		if opens++; opens == 3 {
			return registry.Loaded{}, fs.ErrNotExist
		}
		return registry.Loaded{Model: wire.Model{ID: "base", Engine: &servetest.Fake{}}, Adapters: e}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := servetest.StartModels(t, models, serve.Options{Protocols: append(serve.Protocols(), admin.New(m, root))})
	closed, _ := servetest.StartModels(t, models, serve.Options{Protocols: []*wire.Protocol{admin.New(m, "")}})
	const forbidden = "expected the name of a folder in it"
	for i, c := range []struct {
		url, path, body string
		status          int
		answer          string
	}{
		{url, "/v1/load_lora_adapter", `{"lora_name":"ruby"}`, 200, `{"lora_name":"ruby","status":"loaded"}`},
		{url, "/v1/completions", `{"model":"ruby","prompt":"x"}`, 200, `"model":"ruby"`},
		{url, "/v1/load_lora_adapter", `{"lora_name":"r","lora_path":"../ruby"}`, 400, forbidden},
		{url, "/v1/load_lora_adapter", `{"lora_name":"r","lora_path":"link"}`, 400, forbidden},
		{url, "/v1/load_lora_adapter", `{"lora_name":"r","lora_path":"` + outside + `"}`, 400, forbidden},
		{url, "/v1/load_lora_adapter", `{"lora_name":"r","lora_path":"` + filepath.Join(root, "ruby") + `"}`, 200, `"loaded"`},
		{url, "/v1/load_lora_adapter", `{"lora_name":"r","lora_path":"absent"}`, 404, `"code":"adapter_not_found"`},
		{url, "/v1/load_lora_adapter", `{"lora_path":"ruby"}`, 400, "lora_name: found nothing"},
		{url, "/v1/load_lora_adapter", `{"lora_name":7}`, 400, "lora_name: found 7, expected a string"},
		{url, "/v1/load_lora_adapter", `{"lora_name":"base"}`, 400, "the model's own name"},
		{url, "/v1/load_lora_adapter", `{"lora_name":"base","lora_path":"ruby"}`, 400, "the model's own name"},
		{closed, "/v1/load_lora_adapter", `{"lora_name":"ruby"}`, 403, "adapters_closed"},
		{url, "/v1/reload", ``, 200, `{"status":"reloaded"}`},
		{url, "/v1/reload", ``, 500, "the model before goes on"},
		{url, "/v1/unload_lora_adapter", `{"lora_name":"r"}`, 200, `"unloaded"`},
		{url, "/v1/unload_lora_adapter", `{"lora_name":"r"}`, 404, "adapter_not_found"},
		{url, "/v1/unload_lora_adapter", `{"lora_name":"ruby"}`, 200, `"unloaded"`},
		{url, "/v1/completions", `{"model":"ruby","prompt":"x"}`, 404, "model_not_found"},
	} {
		status, got, _ := servetest.Post(t, c.url+c.path, c.body)
		if status != c.status || !strings.Contains(got, c.answer) {
			t.Errorf("%d %s %s: %d %s, expected %d %s", i, c.path, c.body, status, got, c.status, c.answer)
		}
	}
	resp, err := http.Get(url + "/v1/adapters")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b [100]byte
	n, _ := resp.Body.Read(b[:])
	if got := string(b[:n]); got != `{"adapters":[]}`+"\n" {
		t.Errorf("no adapters: %s", got)
	}
}

// Package admin is how models and adapters are exchanged while the server runs. It is for those who run the server: package guard's hook
// lets nobody else in.
//
//	GET  /v1/adapters                                    {"adapters":[{"name","path","loaded"}]}
//	POST /v1/load_lora_adapter    {"lora_name","lora_path"}  as vLLM has it; replaces an adapter of the name
//	POST /v1/unload_lora_adapter  {"lora_name"}
//	POST /v1/reload               reads the model's folder again
package admin

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"

	"autodev/serve/registry"
	"autodev/serve/wire"
)

// New returns the protocol. Adapters are read from below root alone; where it is "", none is loaded.
func New(m *registry.Manager, root string) *wire.Protocol {
	a := &admin{m, root}
	return &wire.Protocol{Name: "admin", Fault: wire.OpenAIFault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/v1/adapters", Admin: true, Handle: a.list},
		{Method: http.MethodPost, Path: "/v1/load_lora_adapter", Admin: true, Handle: a.load},
		{Method: http.MethodPost, Path: "/v1/unload_lora_adapter", Admin: true, Handle: a.unload},
		{Method: http.MethodPost, Path: "/v1/reload", Admin: true, Handle: a.reload},
	}}
}

type admin struct {
	manager *registry.Manager
	root    string
}

func (a *admin) list(c *wire.Call) error {
	return c.JSON(map[string]any{"adapters": append([]registry.Adapter{}, a.manager.Adapters()...)})
}

func (a *admin) load(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	name, path := f.Text("lora_name", ""), f.Text("lora_path", "")
	switch {
	case f.Err() != nil:
		return f.Err()
	case name == "":
		return wire.BadField("lora_name", "found nothing, expected a name")
	case a.root == "":
		return wire.Errorf(http.StatusForbidden, wire.Forbidden, "lora_path", "adapters_closed", "lora_path: this server was started without a folder of adapters")
	}
	if path == "" {
		path = name
	}
	// Whoever may load an adapter may not read every folder of the machine, links out of the root included.
	dir, err := below(a.root, path)
	if err != nil {
		return wire.BadField("lora_path", "found a path that is not below the folder of adapters, expected the name of a folder in it")
	}
	if err := a.manager.LoadAdapter(c.Context(), name, dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return wire.Errorf(http.StatusNotFound, wire.Invalid, "lora_path", "adapter_not_found", "%s", err)
		}
		return wire.Errorf(http.StatusBadRequest, wire.Invalid, "lora_path", "adapter_invalid", "%s", err)
	}
	return c.JSON(map[string]string{"status": "loaded", "lora_name": name})
}

// below returns the folder that path, relative to root or absolute, means, if it is below root.
func below(root, path string) (string, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	if root, err = filepath.Abs(root); err != nil {
		return "", err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		real, err = filepath.Clean(path), nil // that it is not there is said by who reads it
	}
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, real)
	if err != nil || !filepath.IsLocal(rel) {
		return "", errors.New("not below the root")
	}
	return real, nil
}

func (a *admin) unload(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	name := f.Text("lora_name", "")
	if f.Err() != nil {
		return f.Err()
	}
	if err := a.manager.UnloadAdapter(name); err != nil {
		var unknown *registry.UnknownAdapterError
		if errors.As(err, &unknown) {
			return wire.Errorf(http.StatusNotFound, wire.Invalid, "lora_name", "adapter_not_found", "%s", err)
		}
		return err
	}
	return c.JSON(map[string]string{"status": "unloaded", "lora_name": name})
}

func (a *admin) reload(c *wire.Call) error {
	// Whoever asked may leave: the model is loaded all the same.
	if err := a.manager.Reload(context.WithoutCancel(c.Context())); err != nil {
		return wire.Errorf(http.StatusInternalServerError, wire.Fault, "", "reload_failed", "reload: %s; the model before goes on", err)
	}
	return c.JSON(map[string]string{"status": "reloaded"})
}

// Package models holds the model that AutoDev carries: autodev-tiny, a small GPTBigCode model trained by AutoDev itself
// (recipe and card beside its files). Nothing but embedded files and their names lives here.
package models

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Tiny is the name of the embedded model, the default wherever a model is asked for.
const Tiny = "autodev-tiny"

//go:embed autodev-tiny
var files embed.FS

// Open returns the folder of the model called name: the embedded one for "" and Tiny, else the folder of that path. embedded
// says which it was.
func Open(name string) (fsys fs.FS, embedded bool, err error) {
	if name == "" || name == Tiny {
		sub, err := fs.Sub(files, Tiny)
		if err != nil {
			return nil, true, fmt.Errorf("embedded model %s: %w", Tiny, err)
		}
		return sub, true, nil
	}
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("model %s: %w, expected a folder with config.json and weights (or %q)", name, syscall.ENOENT, Tiny)
	}
	if err != nil {
		return nil, false, fmt.Errorf("model %s: %w", name, err)
	}
	if !st.IsDir() {
		return nil, false, fmt.Errorf("model %s: found a file, expected a folder with config.json and weights (or %q)", name, Tiny)
	}
	return os.DirFS(name), false, nil
}

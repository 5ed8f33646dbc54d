package dynlib

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Spec says how a library is found.
type Spec struct {
	Env   string   // environment variable that overrides everything: a file or a folder
	Names []string // file names, best first
	Hint  string   // what to install when it is not there
}

// CUDA returns the driver library's Spec.
func CUDA() Spec {
	return Spec{"AUTODEV_LIBCUDA", []string{"libcuda.so.1", "libcuda.so"}, "it comes with the NVIDIA driver"}
}

// CublasLt returns libcublasLt's Spec: of versions up to newest, of several the newest.
func CublasLt(newest int) Spec {
	var names []string
	for v := min(newest, 13); v >= 12; v-- {
		names = append(names, fmt.Sprint("libcublasLt.so.", v))
	}
	return Spec{"AUTODEV_LIBCUBLASLT", append(names, "libcublasLt.so"), "it comes with the CUDA toolkit and with the Python wheel nvidia-cublas"}
}

// NotFoundError lists every place a library was looked for in, and what the loader said.
type NotFoundError struct {
	Spec  Spec
	Tried []Attempt
}

// Attempt is one place and why it did not serve.
type Attempt struct {
	Place string
	Err   error
}

func (e *NotFoundError) Error() string {
	places := make([]string, len(e.Tried))
	for i, t := range e.Tried {
		places[i] = fmt.Sprintf("%s: %v", t.Place, t.Err)
	}
	return fmt.Sprintf("%s was not found: %s, or set %s to its path; looked in: %s", e.Spec.Names[0], e.Spec.Hint, e.Spec.Env, strings.Join(places, "; "))
}

// Open loads the library from path, or, when path is empty, from the first place that has it: the override of the environment and nothing
// else if it is set; the loader's path; the CUDA toolkits; the Python wheels, of the python3 on the path first; WSL's folder. It returns where it was found.
func (s Spec) Open(path string) (*Library, error) {
	places := s.places(os.Getenv, filepath.Glob, exec.LookPath)
	if path != "" {
		places = s.inside(path)
	}
	notFound := &NotFoundError{Spec: s}
	for _, place := range places {
		if filepath.IsAbs(place) {
			if _, err := os.Stat(place); err != nil {
				if errors.Is(err, os.ErrNotExist) {
					err = errors.New("no such file")
				}
				notFound.Tried = append(notFound.Tried, Attempt{place, err})
				continue
			}
		}
		lib, err := open(place)
		if err == nil {
			return lib, nil
		}
		if errors.Is(err, ErrUnsupported) {
			return nil, err
		}
		if !filepath.IsAbs(place) {
			place = "the loader's path, " + place
		}
		notFound.Tried = append(notFound.Tried, Attempt{place, err})
	}
	return nil, notFound
}

// inside returns path, or the library's names in it when it is a folder.
func (s Spec) inside(path string) []string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		places := make([]string, len(s.Names))
		for i, n := range s.Names {
			places[i] = filepath.Join(path, n)
		}
		return places
	}
	return []string{path}
}

// places returns what to try, in order.
func (s Spec) places(getenv func(string) string, glob func(string) ([]string, error), find func(string) (string, error)) []string {
	if p := getenv(s.Env); p != "" {
		return s.inside(p)
	}
	places := slices.Clone(s.Names)
	add := func(patterns ...string) {
		for _, pattern := range patterns {
			folders, _ := glob(pattern) // the patterns are ours: Glob cannot fail
			if len(folders) == 0 && !strings.ContainsAny(pattern, "*") {
				folders = []string{pattern}
			}
			slices.Reverse(folders) // newest versions first
			for _, f := range folders {
				for _, n := range s.Names {
					places = append(places, filepath.Join(f, n))
				}
			}
		}
	}
	for _, v := range []string{"CUDA_HOME", "CUDA_PATH"} {
		if root := getenv(v); root != "" {
			add(filepath.Join(root, "lib64"))
		}
	}
	add("/usr/local/cuda/lib64", "/usr/local/cuda-*/lib64", "/opt/cuda/lib64")
	roots := []string{"/usr/lib/python3*/site-packages", "/usr/lib/python3/dist-packages", "/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages"}
	var environments []string
	for _, v := range []string{"CONDA_PREFIX", "VIRTUAL_ENV"} {
		environments = append(environments, getenv(v))
	}
	// Images of containers put an environment on the path and activate none. The interpreter of one is a link out of it: the path says more.
	if python, err := find("python3"); err == nil {
		environments = append(environments, filepath.Dir(filepath.Dir(python)))
	}
	for _, root := range environments {
		if folder := filepath.Join(root, "lib/python3*/site-packages"); root != "" && !slices.Contains(roots, folder) {
			roots = append([]string{folder}, roots...)
		}
	}
	if home := getenv("HOME"); home != "" {
		roots = append(roots, filepath.Join(home, ".local/lib/python3*/site-packages"))
	}
	for _, root := range roots {
		add(filepath.Join(root, "nvidia/cu13/lib"), filepath.Join(root, "nvidia/cublas/lib"))
	}
	add("/usr/local/nvidia/lib64") // where container runtimes mount the driver
	add("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
	return places
}

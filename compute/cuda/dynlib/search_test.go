package dynlib

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPlaces(t *testing.T) {
	environment := map[string]string{"VIRTUAL_ENV": "/venv", "HOME": "/home/u"}
	getenv := func(name string) string { return environment[name] }
	glob := func(pattern string) ([]string, error) {
		switch pattern {
		case "/usr/local/cuda-*/lib64":
			return []string{"/usr/local/cuda-12.4/lib64", "/usr/local/cuda-13.0/lib64"}, nil
		case "/image/venv/lib/python3*/site-packages/nvidia/cu13/lib":
			return []string{"/image/venv/lib/python3.12/site-packages/nvidia/cu13/lib"}, nil
		case "/venv/lib/python3*/site-packages/nvidia/cublas/lib":
			return []string{"/venv/lib/python3.11/site-packages/nvidia/cublas/lib"}, nil
		}
		return nil, nil
	}
	find := func(name string) (string, error) { return "/image/venv/bin/" + name, nil }
	got := CublasLt(13).places(getenv, glob, find)
	order := []string{"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13", "/usr/local/cuda-13.0/lib64/libcublasLt.so.13",
		"/usr/local/cuda-12.4/lib64/libcublasLt.so.12", "/image/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13", "/venv/lib/python3.11/site-packages/nvidia/cublas/lib/libcublasLt.so.12", "/usr/lib/wsl/lib/libcublasLt.so"}
	last := -1
	for _, place := range order {
		at := slices.Index(got, place)
		if at <= last {
			t.Errorf("%s is number %d, expected after %d, in\n%s", place, at, last, strings.Join(got, "\n"))
		}
		last = at
	}
	for _, place := range CublasLt(12).places(getenv, glob, find) {
		if strings.HasSuffix(place, ".13") {
			t.Errorf("up to version 12: %s", place)
		}
	}
	environment["AUTODEV_LIBCUBLASLT"] = "/elsewhere/lib.so"
	if got := CublasLt(13).places(getenv, glob, find); !slices.Equal(got, []string{"/elsewhere/lib.so"}) {
		t.Errorf("with an override: %v", got)
	}
}

func TestNotFound(t *testing.T) {
	_, err := Spec{"AUTODEV_NO_SUCH_LIBRARY", []string{"libautodev-none.so"}, "it does not exist"}.Open("")
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	var notFound *NotFoundError
	if !errors.As(err, &notFound) || len(notFound.Tried) < 5 || !strings.Contains(err.Error(), "AUTODEV_NO_SUCH_LIBRARY") {
		t.Errorf("error %v", err)
	}
}

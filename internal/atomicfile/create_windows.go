package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

func create(dir, path string) (Pending, error) {
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"*")
	if err != nil {
		return nil, err
	}
	return &pending{File: f, path: path}, nil
}

type pending struct {
	*os.File
	path         string
	closed, done bool
}

func (p *pending) CloseAtomicallyReplace() error {
	if err := p.Sync(); err != nil {
		return err
	}
	p.closed = true
	if err := p.Close(); err != nil {
		return err
	}
	// os.Rename replaces an existing file on Windows too.
	if err := os.Rename(p.Name(), p.path); err != nil {
		return err
	}
	p.done = true
	return nil
}

func (p *pending) Cleanup() error {
	if p.done {
		return nil
	}
	p.done = true
	var err error
	if !p.closed {
		err = p.Close()
	}
	return errors.Join(err, os.Remove(p.Name()))
}

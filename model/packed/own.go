package packed

import (
	"errors"
	"fmt"

	"autodev/internal/sizedfile"
)

// Own is a copy of a folder's weights in memory of the process's own, in huge pages: a pass over a model reads all weights, and
// small pages slow that down, most of all in virtual machines. It is filled one parameter at a time. Once a parameter is in
// it the mapped one need not be read again, so that both together are hardly larger than one. It ends with the folder.
type Own struct {
	f    *Folder
	data []byte // laid out as the file
}

// ErrNoHugePages says that a copy of the weights would not help: the system has no huge pages, or not enough memory.
var ErrNoHugePages = errors.New("no huge pages")

// Own returns a copy that has nothing yet; its memory is taken as it is filled. A folder has one at most. It fails with
// ErrNoHugePages unless half as much memory as the weights take would be left.
func (f *Folder) Own() (*Own, error) {
	if f.own != nil {
		return nil, fmt.Errorf("%s: its weights are copied already", f.label)
	}
	if n := int64(len(f.data)); !hugePagesFor(n + n/2) {
		return nil, fmt.Errorf("%s: %d bytes of weights: %w", f.label, n, ErrNoHugePages)
	}
	data, free, err := anonymous(len(f.data))
	if err != nil {
		return nil, fmt.Errorf("%s: %d bytes of memory: %w", f.label, len(f.data), err)
	}
	f.own = free
	return &Own{f, data}, nil
}

// Fill copies the parts of a parameter. between is called after every few mebibytes; its error ends the copy.
func (o *Own) Fill(name string, between func() error) error {
	for _, p := range o.f.entries[name].Parts {
		at := o.f.tensors[name+partOf+p.Name].Offset
		for end := at + p.Size; at < end; at += copyBlock {
			b := o.data[at:min(at+copyBlock, end)]
			// Read, not copied from where the file is mapped: that would map it page by page.
			if _, err := o.f.file.ReadAt(b, at); err != nil {
				return fmt.Errorf("%s: tensor %s: %w", o.f.label, name, sizedfile.Cause(err))
			}
			if err := between(); err != nil {
				return err
			}
		}
	}
	return nil
}

const copyBlock = 2 << 20

// Bytes is Folder.Bytes of the copy.
func (o *Own) Bytes(name, part string) []byte { return o.f.part(o.data, name, part) }

// Forget takes what is mapped of the file out of the process's memory. Whatever is read again comes back.
func (o *Own) Forget() { forget(o.f.data) }

// ForgetParameter is Forget for the parts of one parameter.
func (o *Own) ForgetParameter(name string) {
	for _, p := range o.f.entries[name].Parts {
		at := o.f.tensors[name+partOf+p.Name].Offset
		// Whole pages that hold nothing else.
		lo, hi := (at+pageSize-1)/pageSize*pageSize, (at+p.Size)/pageSize*pageSize
		if lo < hi {
			forget(o.f.data[lo:hi])
		}
	}
}

// pageSize is a multiple of the system's.
const pageSize = 64 << 10

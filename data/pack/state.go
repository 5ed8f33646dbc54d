package pack

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"autodev/data"
)

// ints is a list of numbers that JSON carries as base64 of little-endian int32.
type ints []int32

func (v ints) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(b))
}

func (v *ints) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return err
	}
	if len(raw)%4 != 0 {
		return fmt.Errorf("%d bytes are no list of int32", len(raw))
	}
	*v = make(ints, len(raw)/4)
	for i := range *v {
		(*v)[i] = int32(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}

const stateVersion = 1

// place names a document in the shuffled order of all epochs.
type place struct {
	Epoch uint64      `json:"epoch"`
	Block data.Cursor `json:"block"` // first document of the shuffle block; Unit counts in the epoch's order of units
	Index int         `json:"index"` // within the shuffled block
}

// streamState is what Stream.State writes.
type streamState struct {
	Version int        `json:"version"`
	Data    string     `json:"data"`    // fingerprint of the source and of what decides about its order and examples
	At      place      `json:"at"`      // the document that is being placed, or the next
	Example int        `json:"example"` // of that document
	Offset  int        `json:"offset"`  // within that example
	Begun   bool       `json:"begun"`   // that document was counted
	Open    []*filling `json:"open"`
	Full    []*filling `json:"full"`
	Done    bool       `json:"done"` // the last epoch is over
	Stats   Stats      `json:"stats"`
}

// check refuses what no Stream with these options can have written.
func (s *streamState) check(o Options) error {
	switch {
	case s.At.Index < 0 || s.At.Block.Unit < 0 || s.At.Block.Row < 0 || s.Example < 0 || s.Offset < 0:
		return errors.New("a negative position")
	case len(s.Open) > OpenWindows || len(s.Full) > OpenWindows+2:
		return fmt.Errorf("%d open and %d full windows", len(s.Open), len(s.Full))
	}
	for _, list := range [][]*filling{s.Open, s.Full} {
		for _, f := range list {
			if f == nil || len(f.IDs) != len(f.Targets) || len(f.IDs) != len(f.Start) || len(f.IDs) > o.Sequence {
				return fmt.Errorf("a window that does not fit the sequence of %d tokens", o.Sequence)
			}
			for i := range f.IDs {
				if f.IDs[i] < 0 || f.Targets[i] < NotScored || f.Start[i] < 0 || int(f.Start[i]) > i {
					return fmt.Errorf("a window with token %d, target %d, document start %d at position %d", f.IDs[i], f.Targets[i], f.Start[i], i)
				}
			}
		}
	}
	for _, f := range s.Open {
		if len(f.IDs) == o.Sequence {
			return errors.New("an open window without room")
		}
	}
	return nil
}

// decodeState decodes exactly one JSON object without unknown fields.
func decodeState(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the state")
	}
	return nil
}

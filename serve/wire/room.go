package wire

import (
	"errors"
	"io"
	"sync/atomic"
)

// Room bounds the memory of the bodies of all calls under way: each alone may be long, and slow clients can send many. It is safe for use by any
// number of goroutines.
type Room struct{ left atomic.Int64 }

// NewRoom returns room for so many bytes.
func NewRoom(bytes int64) *Room {
	r := &Room{}
	r.left.Store(bytes)
	return r
}

// freeBytes of each body need no room, so that those who send little do not wait for those who send much.
const freeBytes = 64 << 10

var errNoRoom = errors.New("no room for another long body")

// roomReader takes room for what is read, as it arrives.
type roomReader struct {
	io.Reader
	room  *Room
	bytes int64 // read
	taken int64 // of room
}

func (r *roomReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes += int64(n)
	if more := r.bytes - freeBytes - r.taken; more > 0 {
		r.taken += more
		if r.room.left.Add(-more) < 0 {
			return n, errNoRoom
		}
	}
	return n, err
}

// give returns what was taken.
func (r *roomReader) give() {
	r.room.left.Add(r.taken)
	r.taken = 0
}

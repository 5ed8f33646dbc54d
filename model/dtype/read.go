package dtype

import (
	"fmt"
	"io"
)

// Read fills dst with the elements of type d that begin at offset (bytes) of r. It converts block by block, so that a
// large tensor is in memory once.
func Read(dst []float32, r io.ReaderAt, offset int64, d DType) error {
	if d == F32 {
		if b := NativeBytes(dst); b != nil {
			return ReadFull(b, r, offset)
		}
	}
	if !d.Float() {
		return Decode(dst, nil, d)
	}
	size := d.Size()
	buf := make([]byte, min(1<<20, len(dst)*size))
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/size)
		if err := ReadFull(buf[:n*size], r, offset); err != nil {
			return err
		}
		if err := Decode(dst[:n], buf[:n*size], d); err != nil {
			return err
		}
		dst = dst[n:]
		offset += int64(n * size)
	}
	return nil
}

// ReadFull fills b from offset of r; fewer bytes are an error that says how many there were.
func ReadFull(b []byte, r io.ReaderAt, offset int64) error {
	if n, err := r.ReadAt(b, offset); n < len(b) {
		return fmt.Errorf("read %d of %d bytes at offset %d: %w", n, len(b), offset, err)
	}
	return nil
}

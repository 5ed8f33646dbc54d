package train

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"
)

// eventsFile is TensorBoard's name for event files, which it finds by "tfevents" in the name. A run has one, in the folder
// tensorboard below its output.
const eventsFile = "events.out.tfevents.0000000000.autodev"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the checksum of TensorFlow's record files: CRC-32C, rotated and offset so that checksums of data that
// hold checksums stay good.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// events appends scalars to an event file: TFRecord frames (length, its checksum, data, its checksum; little-endian) of
// tensorflow.Event messages in protocol buffers' encoding.
type events struct {
	f   *os.File
	now func() time.Time
}

// openEvents opens the event file in dir and drops the events after step; a file that is damaged ends before the damage.
func openEvents(dir string, step int) (_ *events, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("TensorBoard events: %w", err)
	}
	name := filepath.Join(dir, eventsFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("TensorBoard events: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	keep, err := eventsUpTo(bufio.NewReader(f), step)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if err := f.Truncate(keep); err != nil {
		return nil, fmt.Errorf("shorten %s: %w", name, err)
	}
	if _, err := f.Seek(keep, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seek in %s: %w", name, err)
	}
	e := &events{f: f, now: time.Now}
	if keep == 0 {
		version := appendField(nil, 3, []byte("brain.Event:2"))
		if err := e.write(e.event(0, version)); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// scalar is one number of a step.
type scalar struct {
	tag   string
	value float64
}

// add appends the numbers of a step as one event.
func (e *events) add(step int, scalars ...scalar) error {
	var summary []byte
	for _, s := range scalars {
		value := appendField(nil, 1, []byte(s.tag))
		value = append(value, 2<<3|5) // simple_value, 32 bits
		value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(s.value)))
		summary = appendField(summary, 1, value)
	}
	return e.write(e.event(step, appendField(nil, 5, summary)))
}

// event is tensorflow.Event: wall_time double = 1, step int64 = 2, and one of file_version = 3, summary = 5.
func (e *events) event(step int, what []byte) []byte {
	b := []byte{1<<3 | 1}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(e.now().UnixNano())/1e9))
	b = append(b, 2<<3)
	b = binary.AppendUvarint(b, uint64(step))
	return append(b, what...)
}

// appendField appends a length-delimited field.
func appendField(b []byte, number byte, content []byte) []byte {
	b = append(b, number<<3|2)
	b = binary.AppendUvarint(b, uint64(len(content)))
	return append(b, content...)
}

func (e *events) write(event []byte) error {
	frame := binary.LittleEndian.AppendUint64(nil, uint64(len(event)))
	frame = binary.LittleEndian.AppendUint32(frame, maskedCRC(frame))
	frame = append(frame, event...)
	frame = binary.LittleEndian.AppendUint32(frame, maskedCRC(event))
	if _, err := e.f.Write(frame); err != nil {
		return fmt.Errorf("TensorBoard events: %w", err)
	}
	return nil
}

func (e *events) close() error { return e.f.Close() }

// maxEvent bounds the length a frame may claim; ours are about a hundred bytes.
const maxEvent = 1 << 20

// eventsUpTo returns the length of the beginning of r that holds whole events of steps up to step.
func eventsUpTo(r io.Reader, step int) (int64, error) {
	var keep int64
	var head [12]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return keep, ignoreEnd(err)
		}
		n := binary.LittleEndian.Uint64(head[:8])
		if n > maxEvent || binary.LittleEndian.Uint32(head[8:]) != maskedCRC(head[:8]) {
			return keep, nil
		}
		body := make([]byte, n+4)
		if _, err := io.ReadFull(r, body); err != nil {
			return keep, ignoreEnd(err)
		}
		if binary.LittleEndian.Uint32(body[n:]) != maskedCRC(body[:n]) {
			return keep, nil
		}
		// Our own events: wall time in 9 bytes, then the step.
		if n < 11 || body[9] != 2<<3 {
			return keep, nil
		}
		s, used := binary.Uvarint(body[10:n])
		if used <= 0 || s > uint64(step) {
			return keep, nil
		}
		keep += int64(len(head)) + int64(len(body))
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

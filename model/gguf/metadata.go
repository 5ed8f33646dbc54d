package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// KV is one pair of a file's metadata. Value is a uint8, int8, uint16, int16, uint32, int32, uint64, int64, float32, float64,
// bool or string, or a slice of one of these.
type KV struct {
	Key   string
	Value any
}

// Metadata is the pairs of a file in the file's order.
type Metadata []KV

// Get returns the value of a key.
func (m Metadata) Get(key string) (value any, ok bool) {
	for _, kv := range m {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return nil, false
}

// String returns the value of a key when it is text, else "".
func (m Metadata) String(key string) string {
	v, _ := m.Get(key)
	s, _ := v.(string)
	return s
}

// Int returns the value of a key when it is an integer of any width that int holds.
func (m Metadata) Int(key string) (n int, ok bool) {
	v, _ := m.Get(key)
	switch v := v.(type) {
	case uint8:
		return int(v), true
	case int8:
		return int(v), true
	case uint16:
		return int(v), true
	case int16:
		return int(v), true
	case uint32:
		return int(v), true
	case int32:
		return int(v), true
	case int64:
		return int(v), true
	case uint64:
		if v <= math.MaxInt64 {
			return int(v), true
		}
	}
	return 0, false
}

// Numbers of value types in a file (enum gguf_metadata_value_type).
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// appendValue appends type and value of v.
func appendValue(b []byte, v any) ([]byte, error) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case uint8:
		return append(le.AppendUint32(b, typeUint8), v), nil
	case int8:
		return append(le.AppendUint32(b, typeInt8), byte(v)), nil
	case uint16:
		return le.AppendUint16(le.AppendUint32(b, typeUint16), v), nil
	case int16:
		return le.AppendUint16(le.AppendUint32(b, typeInt16), uint16(v)), nil
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, typeUint32), v), nil
	case int32:
		return le.AppendUint32(le.AppendUint32(b, typeInt32), uint32(v)), nil
	case float32:
		return le.AppendUint32(le.AppendUint32(b, typeFloat32), math.Float32bits(v)), nil
	case bool:
		return append(le.AppendUint32(b, typeBool), boolByte(v)), nil
	case string:
		return appendString(le.AppendUint32(b, typeString), v), nil
	case uint64:
		return le.AppendUint64(le.AppendUint32(b, typeUint64), v), nil
	case int64:
		return le.AppendUint64(le.AppendUint32(b, typeInt64), uint64(v)), nil
	case float64:
		return le.AppendUint64(le.AppendUint32(b, typeFloat64), math.Float64bits(v)), nil
	case []uint8:
		return append(appendArray(b, typeUint8, len(v)), v...), nil
	case []int8:
		return appendItems(b, typeInt8, v, func(b []byte, x int8) []byte { return append(b, byte(x)) }), nil
	case []uint16:
		return appendItems(b, typeUint16, v, le.AppendUint16), nil
	case []int16:
		return appendItems(b, typeInt16, v, func(b []byte, x int16) []byte { return le.AppendUint16(b, uint16(x)) }), nil
	case []uint32:
		return appendItems(b, typeUint32, v, le.AppendUint32), nil
	case []int32:
		return appendItems(b, typeInt32, v, func(b []byte, x int32) []byte { return le.AppendUint32(b, uint32(x)) }), nil
	case []float32:
		return appendItems(b, typeFloat32, v, func(b []byte, x float32) []byte { return le.AppendUint32(b, math.Float32bits(x)) }), nil
	case []bool:
		return appendItems(b, typeBool, v, func(b []byte, x bool) []byte { return append(b, boolByte(x)) }), nil
	case []string:
		return appendItems(b, typeString, v, appendString), nil
	case []uint64:
		return appendItems(b, typeUint64, v, le.AppendUint64), nil
	case []int64:
		return appendItems(b, typeInt64, v, func(b []byte, x int64) []byte { return le.AppendUint64(b, uint64(x)) }), nil
	case []float64:
		return appendItems(b, typeFloat64, v, func(b []byte, x float64) []byte { return le.AppendUint64(b, math.Float64bits(x)) }), nil
	}
	return nil, fmt.Errorf("value of Go type %T, expected one that GGUF has", v)
}

func appendArray(b []byte, item uint32, n int) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), item), uint64(n))
}

func appendItems[T any](b []byte, item uint32, v []T, put func([]byte, T) []byte) []byte {
	b = appendArray(b, item, len(v))
	for _, x := range v {
		b = put(b, x)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

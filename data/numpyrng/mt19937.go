package numpyrng

import (
	"encoding/binary"
	"fmt"
)

const (
	mtSize  = 624
	mtShift = 397
)

// mt19937 is the Mersenne Twister of Matsumoto and Nishimura (mt19937ar.c).
type mt19937 struct {
	state [mtSize]uint32
	pos   int
}

// seedInt is init_genrand.
func (m *mt19937) seedInt(seed uint32) {
	m.state[0] = seed
	for i := 1; i < mtSize; i++ {
		m.state[i] = 1812433253*(m.state[i-1]^m.state[i-1]>>30) + uint32(i)
	}
	m.pos = mtSize
}

// seedArray is init_by_array.
func (m *mt19937) seedArray(key []uint32) {
	m.seedInt(19650218)
	i, j := 1, 0
	for range max(mtSize, len(key)) {
		m.state[i] = (m.state[i] ^ (m.state[i-1]^m.state[i-1]>>30)*1664525) + key[j] + uint32(j)
		i++
		j++
		if i >= mtSize {
			m.state[0] = m.state[mtSize-1]
			i = 1
		}
		if j >= len(key) {
			j = 0
		}
	}
	for range mtSize - 1 {
		m.state[i] = (m.state[i] ^ (m.state[i-1]^m.state[i-1]>>30)*1566083941) - uint32(i)
		i++
		if i >= mtSize {
			m.state[0] = m.state[mtSize-1]
			i = 1
		}
	}
	m.state[0] = 0x80000000
}

func (m *mt19937) uint32() uint32 {
	if m.pos >= mtSize {
		for i := range mtSize {
			y := m.state[i]&0x80000000 | m.state[(i+1)%mtSize]&0x7fffffff
			v := m.state[(i+mtShift)%mtSize] ^ y>>1
			if y&1 != 0 {
				v ^= 0x9908b0df
			}
			m.state[i] = v
		}
		m.pos = 0
	}
	y := m.state[m.pos]
	m.pos++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// double is a uniform number in [0, 1) with 53 bits, from two draws.
func (m *mt19937) double() float64 {
	a, b := m.uint32()>>5, m.uint32()>>6
	return (float64(a)*(1<<26) + float64(b)) / (1 << 53)
}

func (m *mt19937) marshal() []byte {
	b := make([]byte, 0, 4*(mtSize+1))
	for _, s := range m.state {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(m.pos))
}

func (m *mt19937) unmarshal(b []byte) error {
	if len(b) != 4*(mtSize+1) {
		return fmt.Errorf("state of MT19937: %d bytes, expected %d", len(b), 4*(mtSize+1))
	}
	pos := binary.LittleEndian.Uint32(b[4*mtSize:])
	if pos > mtSize {
		return fmt.Errorf("state of MT19937: position %d, expected at most %d", pos, mtSize)
	}
	for i := range m.state {
		m.state[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	m.pos = int(pos)
	return nil
}

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"autodev/compute"
)

// minTarget is the least target: negative ones are not scored.
const minTarget = math.MinInt32

// rangeCheck is an int32 operand whose elements index a table of limit rows, from least on.
type rangeCheck struct {
	call         *compute.Call
	operand      string
	buffer       compute.Buffer
	at           Ptr
	least, limit int
}

// rangeChecks look at all operands of a program that index tables, each once, and say which element was wrong. The kernels keep
// inside their memory whatever the elements are.
type rangeChecks struct {
	checks   []rangeCheck
	launches []*Launch
	words    Ptr    // on the device: per check the first wrong element
	host     []byte // pinned: where the words are copied to
}

// noneWrong is what a word is where no element is wrong: more than any index of one.
const noneWrong = 0x7f7f7f7f

// add notes a check, unless there is one of the same elements already that allows no more.
func (r *rangeChecks) add(c rangeCheck) {
	for i, old := range r.checks {
		if old.at == c.at && old.buffer.Len() == c.buffer.Len() {
			if c.least > old.least || c.limit < old.limit {
				r.checks[i] = c
			}
			return
		}
	}
	r.checks = append(r.checks, c)
}

// prepare allocates the words and prepares the launches.
func (r *rangeChecks) prepare(q *Queue) (err error) {
	if len(r.checks) == 0 {
		return nil
	}
	bytes := int64(4 * len(r.checks))
	if r.words, err = q.Alloc(bytes); err != nil {
		return err
	}
	if r.host, err = q.Pinned(bytes); err != nil {
		return err
	}
	for i, c := range r.checks {
		l, err := checkRange(q, r.words+Ptr(4*i), c.at, int64(c.buffer.Len()), int32(c.least), int32(min(c.limit, math.MaxInt32)))
		if err != nil {
			return err
		}
		r.launches = append(r.launches, l)
	}
	return nil
}

// Enqueue looks at the operands.
func (r *rangeChecks) Enqueue(q *Queue) error {
	if len(r.checks) == 0 {
		return nil
	}
	if err := q.Fill(r.words, noneWrong&0xff, int64(len(r.host))); err != nil {
		return err
	}
	for _, l := range r.launches {
		if err := l.Enqueue(q); err != nil {
			return err
		}
	}
	return Read(q, r.host, r.words)
}

// wrong returns what was found once the queue has been waited for: the *compute.RangeError of the first call with a wrong element.
func (r *rangeChecks) wrong(q *Queue) error {
	for i, c := range r.checks {
		at := binary.LittleEndian.Uint32(r.host[4*i:])
		if at == noneWrong {
			continue
		}
		e := &compute.RangeError{Operand: c.operand, Index: int(at), Min: max(c.least, -1), Max: c.limit - 1}
		value := make([]int32, 1)
		if err := Read(q, value, c.at+Ptr(4*int64(at))); err != nil {
			return err
		}
		e.Value = value[0]
		return fmt.Errorf("%s: %v: %w", c.call.Name, c.call.Kernel, e)
	}
	return nil
}

func (r *rangeChecks) free(q *Queue) error {
	var errs []error
	if r.words != 0 {
		errs = append(errs, q.Free(r.words))
	}
	if r.host != nil {
		errs = append(errs, q.FreePinned(r.host))
	}
	r.words, r.host = 0, nil
	return errors.Join(errs...)
}

package cuda

// Sequence is operations one after another.
type Sequence []Op

// Enqueue gives all to the device, in order.
func (s Sequence) Enqueue(q *Queue) error {
	for _, op := range s {
		if err := op.Enqueue(q); err != nil {
			return err
		}
	}
	return nil
}

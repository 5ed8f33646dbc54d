package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
)

// FormatIDs appends ids to dst as decimal numbers separated by spaces, and a newline.
func FormatIDs(dst []byte, ids []int32) []byte {
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = strconv.AppendInt(dst, int64(id), 10)
	}
	return append(dst, '\n')
}

// ParseIDs reads numbers separated by white space, each of which must be an id of the vocabulary.
func (t *Tokenizer) ParseIDs(text string) ([]int32, error) {
	ids := make([]int32, 0, len(text)/4)
	for field := range strings.FieldsSeq(text) {
		id, err := strconv.ParseInt(field, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("token id %d: found %.40q, expected a number", len(ids)+1, field)
		}
		if !t.has(int32(id)) {
			return nil, fmt.Errorf("token id %d: found %d, expected an id of the vocabulary (0 to %d)", len(ids)+1, id, t.VocabSize()-1)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

package infer

// Encode returns the tokens of text, nil without a tokenizer. Control tokens are recognised in it only when special says so, which is never for
// text of a user.
func (e *Engine) Encode(text string, special bool) []int32 {
	switch {
	case e.m.tok == nil:
		return nil
	case special:
		return e.m.tok.EncodeSpecial(text)
	}
	return e.m.tok.Encode(text)
}

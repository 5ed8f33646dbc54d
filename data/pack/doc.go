// Package pack fills fixed windows of tokens with examples, and is the end of the data room: its Stream goes from a data.Source
// to the windows that a trainer or an evaluation reads.
//
//	window.go    Window and its invariants
//	packer.go    placing examples into windows
//	stream.go    Stream: shuffling, FIM, tokenisation ahead of time, exact resume
//	shuffled.go  Shuffled: windows permuted in blocks, so that a long document's do not follow each other
//	original.go  Original: the original protocol's ConstantLengthDataset
//	state.go     the resume state
//
// What must not live here: batching, anything about models or optimisers.
//
// # How windows are filled
//
// An example of n tokens takes n-1 positions: each of its tokens but the first is the target of the position before it, and the last (as a
// rule end-of-text) is never an input, because nothing follows it. Attention must stay within a document (DocStart),
// positions start again at 0 in each, and no target lies in another document than its input. FIM examples are kept whole: each goes
// into the open window that it fills best, among at most OpenWindows. Other examples are split where a window ends and
// go on in another window with positions of their own, so that every target is still learnt exactly once.
package pack

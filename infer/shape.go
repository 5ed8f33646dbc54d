package infer

// Shape says where a completion ends by its form, so that it fits where it is inserted. The zero value cuts nothing.
type Shape struct {
	Lines Lines
	// NoOverlap leaves out what the completion's end repeats of the suffix's beginning.
	NoOverlap bool
	// NoLoops ends a completion that goes round in circles, before the second round.
	NoLoops bool
	// MinIndent leaves out the first line that is indented by less, and what follows: spaces, a tab counts as far as its stop.
	MinIndent int
}

// Lines is how much a completion may span.
type Lines uint8

const (
	// AllLines is as much as the model wants.
	AllLines Lines = iota
	// OneLine is what is left of the line of the cursor.
	OneLine
	// Block is a line, and where it opens a block, the block: to where indentation and brackets say that it ends.
	Block
	// AutoLines is OneLine inside a line and Block where a line or a block begins.
	AutoLines
)

// StopRule names the rule of a Shape that ended or cut a completion; "" is none.
type StopRule string

const (
	StopLine   StopRule = "line"   // OneLine
	StopBlock  StopRule = "block"  // Block
	StopSuffix StopRule = "suffix" // NoOverlap
	StopLoop   StopRule = "loop"   // NoLoops
	StopIndent StopRule = "indent" // MinIndent
)

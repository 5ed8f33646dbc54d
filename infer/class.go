package infer

// Class says which requests go first when there is more to do than can be done at once.
type Class uint8

const (
	// Interactive requests are completions somebody waits for while typing: before all others.
	Interactive Class = iota
	// Chat requests are answers somebody reads while they are written.
	Chat
	// Background requests are those that nobody waits for.
	Background
)

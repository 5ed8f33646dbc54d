package vec

// level is the instruction set of the functions that run; all give the same bits.
type level uint8

const generic level = 0

// best is what this machine's functions use.
var best = levels()[0]

// Package par runs independent pieces of work on a fixed set of goroutines: a fork-join pool for kernels.
//
// What must not live here: arithmetic, or any decision how work is cut. The pool hands out item indices in ascending order
// to whoever is free; which worker gets which item is not defined, so an item must write only what belongs to it. Reductions
// over items are the caller's, in item order, after Run has returned.
package par

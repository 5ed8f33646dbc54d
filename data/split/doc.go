// Package split divides documents into those to train on and those to evaluate on.
//
//	ByRepository  all files of a repository on the same side, by a hash of its name (the default)
//	ByFiles       the evaluation documents are listed by path
//	Original      the original protocol's train_test_split(test_size=0.005, seed=0), bit for bit
//
// What must not live here: near-duplicate detection, reading documents.
package split

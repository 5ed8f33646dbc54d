// Package dtype names the element types of checkpoint files and converts them to and from float32, in which the project
// computes and keeps weights. Only formats and numbers live here: no files, no shapes, no arithmetic on weights.
package dtype

// Package configs holds the recipes that people copy (the YAML files beside this one) and the Go struct that a recipe
// decodes into. Decoding is strict: an unknown key, a wrong type or a value out of range is an error that names the file,
// the line, the key, what was found and what was expected.
// assist.go does the same for the assistance functions of a server (examples/assist.yaml).
//
// What must not live here: anything that acts on a recipe (package train), and any knowledge of models or data beyond the
// names of options. The package imports nothing of the project.
package configs

package infer

// adapter is a LoRA adapter of a model in memory.
type adapter struct {
	generation uint64 // from 1 on, another for each that is loaded
}

// kind tells keys and values apart that were evaluated with other adapters. nil is the model as it is.
func (a *adapter) kind() uint64 {
	if a == nil {
		return 0
	}
	return a.generation
}

// Package torchbin reads the tensors of files that torch.save wrote (pytorch_model.bin): a pickle of a state dict beside
// raw storages, in a zip archive or in the stream format torch used before 1.6.
// Formats: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py, https://docs.python.org/3/library/pickletools.html.
//
// A pickle is a program for a small stack machine that may name and call anything in Python. The machine here knows only
// what a state dict of tensors needs; every other opcode or name is an error, and nothing is ever executed.
package torchbin

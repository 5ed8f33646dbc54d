// Package numpyrng reproduces, bit for bit, the random numbers that the original protocol drew from numpy and Python:
//
//	RandomState  numpy.random.RandomState(seed): MT19937, random_sample, binomial(1, p), randint
//	Generator    numpy.random.default_rng(seed): SeedSequence and PCG64; permutation, shuffle, integers
//	Python       Python's random.Random(seed): shuffle
//
// Both numpy streams are promised to be stable across numpy versions (RandomState by NEP 19, PCG64 and SeedSequence by their
// documentation); the Generator methods here are as in numpy 1.17 to 1.26. Everything else in AutoDev draws from
// internal/rng. The generators are not safe for concurrent use.
package numpyrng

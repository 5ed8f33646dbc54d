// Package calibrate finds the codes of quantised weights with the help of what their layer reads.
//
//	sample.go  Sample: calibration text out of many documents
//	inputs.go  Inputs: mean and covariance of a layer's inputs
//	factor.go  factor: the Cholesky factor of a covariance
//	gptq.go    Quantize: codes, scales and a correction of the bias
//
// It knows nothing of models, files or which layer a weight belongs to; package infer runs the model over calibration text.
package calibrate

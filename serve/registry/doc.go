// Package registry holds the models and adapters that a server has, and exchanges them while requests go on.
//
//	registry.go  who uses which model, and when it can go
//	manager.go   one base model and its adapters: loaded, replaced, removed
package registry

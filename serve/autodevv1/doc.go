// Package autodevv1 is the form-based service of the original AutoDev, as its plugin for IntelliJ speaks it.
//
//	protocol.go   routes, and failures as the plugin survives them
//	form.go       bodies: multipart, each part in its own character set, or urlencoded
//	complete.go   POST /autocomplete
//	functions.go  POST /fn/… and /fn/stream/…
//
// The plugin looks at no status: whatever body an answer has, it inserts or shows. So a failed completion has an empty body, a failed
// function that was to replace code has that code for a body, since the plugin has deleted it by then, and a stream that fails breaks off. Other
// clients have the status.
//
// HTML is escaped, which the original's was not. Beside the original's fields a form may have those of other protocols' extensions, and max_tokens
// and model.
package autodevv1

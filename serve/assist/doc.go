// Package assist applies functions to code: find-problems, add-input-checks, explain, review, improve, document, write-tests, edit, and those of the
// user's own. A function is a file with a head and templates of prompts (functions/*.md); what answers is a model of this process or a service that
// speaks OpenAI's protocol.
//
//	function.go  functions: their files, and which text a model gets
//	functions/   the built-in ones
//	request.go   what a function is applied to, and what its templates see of it
//	language.go  what prompts need to know of programming languages
//	run.go       one application, from request to edit
//	code.go      an answer's code, found while it arrives
//	circles.go   code that repeats itself without end
//	indent.go    code as the selection is: indentation, tabs or spaces, line ends
//	markdown.go  an answer's Markdown as safe HTML, while it arrives
//	backend.go   what answers
//	local.go     a model of this process
//	external.go  a service elsewhere, through its official client
//	budget.go    how much of it may be used in a day
//	service.go   functions and backends of a configuration
//	file.go      files on disk, for the command line
//	http.go      the protocol for editors
//
// Prose is shown as it arrives. Code is shown as it will stand in the file, and comes once more as an Edit when it is complete; an answer that fails, is
// cut off or holds no code has no Edit, so that the selection is never lost.
//
// Text of users goes into prompts as content of messages, which package infer/chat keeps apart from control tokens. With the local-only switch no client
// for a service elsewhere is ever made (newClient is the only place that makes one). The package never logs text of a user.
package assist

// Package events keeps what became of suggestions: that they were shown, taken or refused, as editors report it.
//
//	log.go        one file of JSON lines a day, whole lines only, bounded
//	table.go      the completions of the last while, which events name by their ids
//	event.go      what an event and a line are
//	documents.go  lines read back, as documents to learn from
//
// # Lines
//
// A line is a JSON object. Without content it says when, what, and of which completion, model, adapter and language: no text. With
// content (Options.Content, which is off unless it is asked for) the line of a suggestion that was taken also has prefix, completion and
// suffix, and content, their concatenation: what the file looked like then. Package data/source reads such files as they are: lines
// with content are documents, the others, whose content is null, are skipped and counted. So the folder is a source of training data as it is
// (data.train of a recipe): what was taken is cut anew for filling in the middle like any other document. Suggestions taken one after the
// other in one file make documents that are nearly the same; `autodev data from-events` leaves out those that a later one holds.
//
// What must not live here: HTTP, and what events mean for a model.
package events

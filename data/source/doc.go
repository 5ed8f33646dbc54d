// Package source opens documents where they lie, as a data.Source: parquet files, JSON lines and folders of source code on
// the local disk, and parquet and JSON-lines files over http(s) by Range requests.
//
//	parquet.go     row groups of the-stack's layout, column by column, with bounded memory
//	pageguard.go   checks a parquet file's lengths before the parquet library trusts them
//	pagecheck.go   uncompresses pages within what their headers say, and checks the counts in them
//	jsonl.go       one JSON object a line: content, or ready input_ids
//	folder.go      source files by language, respecting .gitignore (gitignore.go, language.go)
//	httprange.go   random access over HTTP with retries
//
// What must not live here: tokenisation, filtering by quality, anything that depends on the order of reading.
//
// # What is skipped
//
// Nothing is dropped silently: rows with a null content, texts that are not UTF-8 and, in folders, binary, oversized and
// symbolically linked files are counted by reason (Set.Skipped) and logged at level debug. A file that cannot be read as what it
// claims to be is an error instead.
package source

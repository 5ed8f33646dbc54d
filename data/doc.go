// Package data is the "documents in" half of the data room: the Document type, the Source interface that yields documents
// in a fixed order, and the Cursor that names a place in that order so that a run can resume exactly there.
//
// The sub-packages follow a document on its way to a training step:
//
//	source    opens parquet files, JSON lines and folders, local or over http(s), as a data.Source
//	split     divides a Source into training and evaluation documents
//	fim       rearranges one document for fill-in-the-middle training
//	pack      fills fixed token windows; pack.Stream is the whole pipeline that trainers read
//	numpyrng  numpy's and Python's random numbers, for the original protocol only
//
// What must not live here: tokenisation itself (package tokenizer), file formats (source), anything about models.
//
// # Order, units and cursors
//
// A Source is a sequence of units, and a unit is a sequence of rows. A unit is whatever can be opened independently at a
// reasonable cost: a row group of a parquet file, one JSON-lines file, one source file. The fixed order of a Source is
// unit 0 row 0, unit 0 row 1, …, unit 1 row 0, …. A Cursor is (unit, row) and always names a place in that underlying
// order, whatever was skipped or filtered on the way: a filtered Source keeps the coordinates of the Source below it. This is
// what makes a Cursor an exact and tiny resume point and (unit, row) a stable identity of a document, which
// keys the random decisions made about it.
package data

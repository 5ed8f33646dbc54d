package infer

import "autodev/compute/cuda"

// inputs says where what the kernels of a pass read from device memory lies, in words: which rows are which tokens of which sequences. Part by
// part the rows attend to what is in the pages.
type inputs struct {
	rows, parts int
	tiles       int // of a part
	tileRows    int // of a tile, at most
	pages       int // of a sequence, at most

	ids, positions int // [rows]
	sequences      int // [rows] the row's row of table, −1 if the row is no token
	starts         int // [rows] the first row of the row's sequence
	runs           int // [parts, tiles, 2] tiles: the first row, counted from the part's, and how many
	table          int // [sequences, pages], of which only those that there are need be sent
	words          int
}

// inputsFor returns the inputs of a pass of short spans, or of long ones, that has so many rows.
func (c *card) inputsFor(rows int, short bool) inputs {
	in := inputs{rows: rows, parts: (rows + attendRows - 1) / attendRows, tileRows: attendRows, pages: pagesFor(c.context)}
	for i := range c.program.steps {
		if st := &c.program.steps[i]; st.op == opAttention {
			in.tileRows = min(in.tileRows, c.paged(st, 1, 1).TileRows())
		}
	}
	sequences := rows
	in.tiles = min(rows, attendRows)
	if !short {
		sequences = rows/(cuda.FewRows+1) + 1
		// Every sequence may have one tile that is not full: those that lie whole in the part, and two that do not.
		in.tiles = min(in.tiles, in.tiles/in.tileRows+in.tiles/(cuda.FewRows+1)+3)
	}
	take := func(n int) (at int) {
		at = in.words
		in.words += n
		return at
	}
	in.ids, in.positions, in.sequences, in.starts = take(rows), take(rows), take(rows), take(rows)
	in.runs, in.table = take(2*in.parts*in.tiles), take(sequences*in.pages)
	return in
}

// The parts of a card's inputs, of its registers, logits and choices: those of short spans come first.
const (
	ofShort = iota
	ofLong
)

// mostInputs returns the inputs of the largest passes.
func (c *card) mostInputs() [2]inputs {
	return [2]inputs{ofShort: c.inputsFor(cuda.FewRows, true), ofLong: c.inputsFor(c.chunk, false)}
}

// partRows returns how many rows a part has.
func (in *inputs) partRows(part int) int { return min(attendRows, in.rows-part*attendRows) }

// fill writes the inputs for spans and returns those that the device needs.
func (in *inputs) fill(to []int32, spans []*span) []int32 {
	to = to[:in.table+len(spans)*in.pages]
	clear(to)
	for r := range in.rows {
		to[in.sequences+r], to[in.starts+r] = -1, int32(r)
	}
	row := 0
	for b, s := range spans {
		copy(to[in.table+b*in.pages:][:in.pages], s.kv.(*cardSequence).pages)
		first := row
		for i, id := range s.ids {
			to[in.ids+row], to[in.positions+row] = id, int32(s.at+i)
			to[in.sequences+row], to[in.starts+row] = int32(b), int32(first)
			row++
		}
	}
	for part := range in.parts {
		begin := part * attendRows
		end, runs := min(begin+attendRows, row), to[in.runs+2*part*in.tiles:]
		for r := begin; r < end; {
			n := 1
			for n < in.tileRows && r+n < end && to[in.sequences+r+n] == to[in.sequences+r] {
				n++
			}
			runs[0], runs[1] = int32(r-begin), int32(n)
			runs, r = runs[2:], r+n
		}
	}
	return to
}

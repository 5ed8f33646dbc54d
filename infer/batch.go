package infer

import (
	"context"
	"slices"

	"autodev/compute/cpu"
	"autodev/compute/cpu/quant"
	"autodev/compute/cpu/vec"
)

// span is what a pass evaluates of one sequence: tokens behind those that the sequence holds.
type span struct {
	ctx     context.Context // whose end ends the span
	kv      sequence        // has room for the tokens
	ids     []int32         // at least one
	at      int             // position of the first
	from    int             // the logits after ids[from:] are wanted
	adapter spanAdapter     // nil: the model as it is
	// visit, unless it is nil, gets the logits in place of logits, in order, of at most headTokens tokens at a time: those after
	// ids[first:first+n], [n, Model.rows], which may be changed and are valid until it returns.
	visit func(first, n int, logits []float32) error

	// choices, unless it is nil, has room for len(ids)−from tokens. A card may set it to those with the largest logits, the lowest of equal ones, among
	// those that are generated at all, and leaves no logits then. With sampling they are drawn, as tokens number next and following.
	choices  []int32
	sampling *Sampling
	next     int

	rows int // of it in the registers: a row for every token, and behind the program's narrow step for those from from on

	logits []float32 // [len(ids)−from, Model.rows] after the pass; may be changed, and are valid until the next
	err    error     // why nothing came of it: ctx's or visit's error; others of the pass are not touched by it
}

// wanted is the number of tokens whose logits are.
func (s *span) wanted() int { return len(s.ids) - s.from }

// spanAdapter is a LoRA adapter as a pass sees it: what it adds to the products of some matrices.
type spanAdapter interface {
	// adapts says whether it adds anything to products with w.
	adapts(w *matrix) bool
	// add adds its part for x [n, w.in] to y [n, w.out], where the products with w are, before an activation. A row's bits must not depend
	// on n.
	add(w *matrix, y, x []float32, n int)
}

// batch is a pass: the program run once over the tokens of several sequences, so that weights are read once for all. A row's bits do not
// depend on the other rows.
type batch struct {
	m     *Model
	w     *workspace
	spans []*span // those that have not ended; their rows follow one another
	n     int     // their rows
	// The register whose rows w.rows are, quantised, −1 for none; codes says that they are nowhere else.
	inRows int
	codes  bool
	fuse   bool // it is run: steps need not leave what only the next ones read

	at      int         // the next step of the program
	part    int         // of that, how much is done: rows of a product, rounds of attention
	leave   func() bool // asked after every kernel, and within long ones, whether run is to return; nil: never
	stop    func() bool // ended, for kernels: any thread may ask
	looking func()      // called before every look at the contexts; nil but in tests
}

// begin makes a pass over spans ready. w keeps the list.
func (b *batch) begin(m *Model, w *workspace, spans []*span) {
	w.spans = append(w.spans[:0], spans...)
	stop := b.stop
	if stop == nil {
		stop = b.ended
	}
	*b = batch{m: m, w: w, spans: w.spans, inRows: -1, leave: b.leave, stop: stop, looking: b.looking}
	for _, s := range spans {
		s.logits, s.err, s.rows = nil, nil, len(s.ids)
		b.n += s.rows
	}
	w.grow(m, b.n)
}

// run evaluates the spans. It looks at their contexts before every kernel, and within long ones: a span that has ended leaves the
// pass with an error, and when all have, the pass is over. Where leave says so it returns before that, over false: what there is so far stays in
// the workspace, and the next call goes on behind it, at least to the next place where leave is asked.
func (b *batch) run() (over bool, err error) {
	w, widths := b.w, b.m.program.widths
	b.fuse = true
	for b.at < len(b.m.program.steps) {
		st := &b.m.program.steps[b.at]
		if b.codes && st.x != b.inRows {
			b.forget()
		}
		// Within a kernel rows stay where they are.
		if b.part == 0 && !b.look() {
			return true, nil
		}
		n := b.n
		if b.at == b.m.program.narrow {
			if n = b.tokens(); b.part == 0 {
				b.narrow()
			}
		}
		if st.op == opHead {
			b.head(w.registers[st.x])
			return true, nil
		}
		var x, y, out []float32
		if st.x >= 0 {
			x = w.registers[st.x][:n*widths[st.x]]
		}
		if st.y >= 0 {
			y = w.registers[st.y][:b.n*widths[st.y]]
		}
		if st.out >= 0 {
			out = w.registers[st.out][:b.n*widths[st.out]]
		}
		if st.out == b.inRows {
			b.forget()
		}
		if err := b.step(st, out, x, y); err != nil {
			return true, err
		}
		if b.part > 0 {
			return false, nil
		}
		if b.n == 0 {
			return true, nil
		}
		if b.at++; b.leaves() {
			return false, nil
		}
	}
	return true, nil
}

func (b *batch) leaves() bool { return b.leave != nil && b.leave() }

// tokens returns how many there are in the spans.
func (b *batch) tokens() (n int) {
	for _, s := range b.spans {
		n += len(s.ids)
	}
	return n
}

// narrow leaves rows for those tokens alone whose logits are wanted.
func (b *batch) narrow() {
	for _, r := range b.m.program.kept {
		x, width := b.w.registers[r], b.m.program.widths[r]
		from, to := 0, 0
		for _, s := range b.spans {
			to += copy(x[to:], x[from+s.from*width:from+s.rows*width])
			from += s.rows * width
		}
	}
	b.forget()
	b.n = 0
	for _, s := range b.spans {
		s.rows = len(s.ids) - s.from
		b.n += s.rows
	}
}

// look removes the spans that have ended and reports whether any is left. Rows that are only quantised stay as they are, so that it
// removes none then.
func (b *batch) look() bool {
	if b.looking != nil {
		b.looking()
	}
	if b.codes && !b.over() {
		return true
	}
	for i := len(b.spans) - 1; i >= 0; i-- {
		if s := b.spans[i]; s.err != nil {
			b.remove(i)
		} else if s.err = context.Cause(s.ctx); s.err != nil {
			b.remove(i)
		}
	}
	return len(b.spans) > 0
}

// over reports whether all spans have ended; it removes none.
func (b *batch) over() bool {
	for _, s := range b.spans {
		if s.err = context.Cause(s.ctx); s.err == nil {
			return false
		}
	}
	return true
}

// ended is over without a note why.
func (b *batch) ended() bool {
	for _, s := range b.spans {
		if s.ctx.Err() == nil {
			return false
		}
	}
	return true
}

// remove takes span i out: the rows behind it move up.
func (b *batch) remove(i int) {
	first := 0
	for _, s := range b.spans[:i] {
		first += s.rows
	}
	n := b.spans[i].rows
	if first+n < b.n {
		for r, width := range b.m.program.widths {
			x := b.w.registers[r]
			copy(x[first*width:], x[(first+n)*width:b.n*width])
		}
	}
	b.spans, b.n = slices.Delete(b.spans, i, i+1), b.n-n
	b.forget()
}

// forget says that no register is quantised.
func (b *batch) forget() { b.inRows, b.codes = -1, false }

// step runs one kernel over all rows.
func (b *batch) step(st *step, out, x, y []float32) error {
	m := b.m
	switch st.op {
	case opEmbed:
		b.embed(st, out)
	case opLayerNorm:
		b.norm(st, out, x)
	case opLinear:
		b.linear(st, out, x, y)
	case opAttention:
		return b.attention(st, out, x)
	case opActivate:
		m.kernels.Activation(out, x, st.act)
	case opAdd:
		m.kernels.Add(out, x, y)
	}
	return nil
}

// embed sets out to the embeddings of the tokens at their positions.
func (b *batch) embed(st *step, out []float32) {
	width := b.m.program.widths[st.out]
	for _, s := range b.spans {
		rows := out[:len(s.ids)*width]
		out = out[len(rows):]
		if len(s.ids) <= headTokens {
			for i, id := range s.ids {
				st.embed(rows[i*width:][:width], id, s.at+i)
			}
			continue
		}
		b.m.pool.Run(len(s.ids), func(i int) { st.embed(rows[i*width:][:width], s.ids[i], s.at+i) })
	}
}

// embed sets row to the embedding of a token at a position.
func (st *step) embed(row []float32, id int32, position int) {
	st.weight.row(row, int(id))
	vec.Add(row, row, st.positions[position*len(row):][:len(row)])
}

// linear computes a product and what follows it. What an adapter adds comes before an activation, so that this is a step of its own
// then, which changes no bit of other rows, and after what else is added.
func (b *batch) linear(st *step, out, x, y []float32) {
	any := slices.ContainsFunc(b.spans, func(s *span) bool { return s.adapter != nil && s.adapter.adapts(st.weight) })
	e := epilogue{bias: st.bias, base: y}
	if st.fused && !any {
		e.then = activation(st.act)
	}
	b.product(st, out, x, e)
	if !any || b.part > 0 {
		return
	}
	first, in, width := 0, st.weight.in, st.weight.out
	for i := 0; i < len(b.spans); {
		a, n := b.spans[i].adapter, 0
		for ; i < len(b.spans) && b.spans[i].adapter == a; i++ {
			n += b.spans[i].rows
		}
		if a != nil && a.adapts(st.weight) {
			a.add(st.weight, out[first*width:][:n*width], x[first*in:][:n*in], n)
		}
		first += n
	}
	if st.fused {
		b.m.kernels.Activation(out, out, st.act)
	}
}

// product computes the product of a linear's rows, looking at the contexts now and then.
func (b *batch) product(st *step, out, x []float32, e epilogue) {
	w, f := st.weight, st.weight.now()
	if f.quant != nil {
		b.quantised(st, out, x, f.quant, e)
		return
	}
	most := b.m.rowsPerLook(2*w.in*w.out, f)
	first := b.part
	for b.part = 0; first < b.n; {
		n := firstChunk(b.n-first, most)
		part := e
		if e.base != nil {
			part.base = e.base[first*w.out:][:n*w.out]
		}
		b.m.linear(out[first*w.out:][:n*w.out], x[first*w.in:][:n*w.in], n, w, f, part)
		if first += n; first == b.n || b.over() {
			return
		}
		if b.leaves() {
			b.part = first
			return
		}
	}
}

// quantised is product for quantised weights. Rows that several products read are quantised once.
func (b *batch) quantised(st *step, out, x []float32, w *quant.Matrix, e epilogue) {
	if b.inRows != st.x {
		b.w.rows.Set(b.m.pool, x, b.n, w.In())
		b.inRows, b.codes = st.x, false
	}
	q := quant.Epilogue{Bias: e.bias, Then: e.then, Base: e.base, Stop: b.stop}
	if b.leavesCodes(st) {
		q.Rows = &b.w.next
	}
	quant.Mul(b.m.pool, out, &b.w.rows, w, q)
	if q.Rows != nil {
		b.w.rows, b.w.next = b.w.next, b.w.rows
		b.inRows, b.codes = st.out, true
	}
}

// leavesCodes reports whether st leaves its rows quantised alone: adapters read them as they are.
func (b *batch) leavesCodes(st *step) bool {
	return st.codes && b.fuse && !slices.ContainsFunc(b.spans, func(s *span) bool { return s.adapter != nil })
}

// norm sets out to the layer norm of x.
func (b *batch) norm(st *step, out, x []float32) {
	width := b.m.program.widths[st.x]
	if !b.leavesCodes(st) {
		b.m.kernels.LayerNorm(out, x, st.gain, st.bias, b.n, width, st.epsilon)
		return
	}
	b.w.norm = normRows{st, x}
	b.w.rows.SetFrom(b.m.pool, &b.w.norm, b.n, width)
	b.inRows, b.codes = st.out, true
}

// normRows is a quant.Source of the layer norm of x.
type normRows struct {
	st *step
	x  []float32
}

func (r *normRows) Row(dst []float32, i int) {
	cpu.LayerNormRow(dst, r.x[i*len(dst):][:len(dst)], r.st.gain, r.st.bias, r.st.epsilon)
}

// attention attends, for each span, to its own sequence, long ones in parts between which the contexts are looked at. x has a row for
// every token, out for those that have one.
func (b *batch) attention(st *step, out, x []float32) error {
	m, w, a := b.m, b.w, attributes(st.spec)
	if need := m.kernels.AttendCachedWork(m.Context(), a); len(w.attention) < need {
		w.attention = make([]float32, need)
	}
	in, width := m.program.widths[st.x], a.Heads*a.HeadDim
	for more := true; more; b.part++ {
		w.cached, more = w.cached[:0], false
		first, rows := 0, 0
		for _, s := range b.spans {
			n := len(s.ids)
			skip := n - s.rows
			part := m.rowsPerLook(4*width*(s.at+n), nil)
			if from := b.part * part; from < n {
				to := min(from+part, n)
				w.cached = append(w.cached, cpu.Cached{
					Y:   out[(rows+max(from-skip, 0))*width : (rows+max(to-skip, 0))*width],
					QKV: x[(first+from)*in : (first+to)*in], Cache: s.kv.(*processor).kv[st.layer], First: s.at + from, Skip: min(max(skip-from, 0), to-from),
				})
				more = more || to < n
			}
			first, rows = first+n, rows+s.rows
		}
		if b.part > 0 && b.over() {
			break
		}
		if err := m.kernels.AttendCached(w.cached, m.Context(), a, w.attention); err != nil {
			return err
		}
		if more && b.leaves() {
			b.part++
			return nil
		}
	}
	b.part = 0
	return nil
}

// head computes the logits of hidden, the rows that the last step left: shows them, or leaves them with their spans.
func (b *batch) head(hidden []float32) {
	in, visits := b.m.program.head().in, false
	first := 0
	for _, s := range b.spans {
		if s.visit != nil {
			visits, s.err = true, b.visit(s, hidden[first*in:][:s.rows*in])
		}
		first += s.rows
	}
	if visits {
		// The rows of the others are brought together.
		first, n := 0, 0
		for _, s := range b.spans {
			had := s.rows
			if s.visit != nil {
				s.rows = 0
			}
			copy(hidden[n*in:], hidden[first*in:][:s.rows*in])
			first, n = first+had, n+s.rows
		}
		b.n = n
	}
	if b.n == 0 {
		return
	}
	logits := b.logits(hidden, b.n)
	for _, s := range b.spans {
		if k := s.rows * b.m.rows; k > 0 {
			s.logits, logits = logits[:k:k], logits[k:]
		}
	}
}

// visit shows the logits of a span's rows to it, part by part.
func (b *batch) visit(s *span, hidden []float32) error {
	in := b.m.program.head().in
	for row := 0; row < s.rows; row += headTokens {
		n := min(headTokens, s.rows-row)
		if err := context.Cause(s.ctx); err != nil {
			return err
		}
		if err := s.visit(s.from+row, n, b.logits(hidden[row*in:], n)); err != nil {
			return err
		}
	}
	return nil
}

// logits returns the logits [n, Model.rows] of the first n rows of x, valid until the next call.
func (b *batch) logits(x []float32, n int) []float32 {
	head := b.m.program.head()
	if len(b.w.logits) < n*head.out {
		b.w.logits = make([]float32, n*head.out)
	}
	y := b.w.logits[:n*head.out]
	f := head.now()
	if f.quant == nil {
		b.m.linear(y, x[:n*head.in], n, head, f, epilogue{})
		return y
	}
	b.w.rows.Set(b.m.pool, x[:n*head.in], n, head.in)
	b.forget()
	quant.Mul(b.m.pool, y, &b.w.rows, f.quant, quant.Epilogue{})
	return y
}

// What a kernel may compute between two looks at the contexts, in operations for each thread: some ten milliseconds' worth.
const (
	lookFloat32   = 2e9
	lookBFloat16  = 4e9
	lookAttention = 1e9
)

// rowsPerLook returns how many rows of that many operations each a kernel may compute at a time with weights of form f, nil for
// attention.
func (m *Model) rowsPerLook(operations int, f *form) int {
	budget := lookFloat32
	switch {
	case f == nil:
		budget = lookAttention
	case f.packed != nil && f.packed.BF16() != nil:
		budget = lookBFloat16
	}
	return max(headTokens, int(budget*m.perLook)*m.pool.Threads()/max(1, operations))
}

package runtime

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Figure is one of a report's plots.
type Figure struct {
	Name string // of its files, without the format's ending
	draw func(c draw.Canvas) error
}

// Figures returns the report's plots: the time of a completion request by variant, and memory against decoding speed.
func (r *Report) Figures() []Figure {
	return []Figure{{"latency", r.drawLatency}, {"memory", r.drawMemory}}
}

const (
	figureWidth  = 10 * vg.Inch
	figureHeight = 5.2 * vg.Inch
	figureMargin = 14 * vg.Length(1)
	pngDPI       = 192
)

// WriteSVG writes the figure as SVG.
func (f Figure) WriteSVG(w io.Writer) error {
	c := vgsvg.New(figureWidth, figureHeight)
	return f.write(c, c, w)
}

// WritePNG writes the figure as PNG.
func (f Figure) WritePNG(w io.Writer) error {
	c := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(figureWidth, figureHeight), vgimg.UseDPI(pngDPI))}
	return f.write(c, c, w)
}

func (f Figure) write(c vg.CanvasSizer, out io.WriterTo, w io.Writer) error {
	canvas := draw.New(c)
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Rectangle.Path())
	if err := f.draw(draw.Crop(canvas, figureMargin, -figureMargin, figureMargin, -figureMargin)); err != nil {
		return fmt.Errorf("figure %s: %w", f.Name, err)
	}
	_, err := out.WriteTo(w)
	return err
}

var (
	ink      = color.Gray{0x26}
	faintInk = color.Gray{0x60}
	gridInk  = color.Gray{0xE2}
)

// Colours of Okabe and Ito, which people with any kind of colour vision tell apart.
var (
	modeColor = map[Mode]color.RGBA{Uncached: {0x6E, 0x6E, 0x6E, 255}, Cached: {0x00, 0x72, 0xB2, 255}, Speculative: {0xD5, 0x5E, 0x00, 255}}
	palette   = []color.RGBA{{0x00, 0x72, 0xB2, 255}, {0xD5, 0x5E, 0x00, 255}, {0x00, 0x9E, 0x73, 255}, {0xCC, 0x79, 0xA7, 255}, {0xE6, 0x9F, 0x00, 255}, {0x56, 0xB4, 0xE9, 255}}
)

var modeText = map[Mode]string{Uncached: "no cache", Cached: "cache", Speculative: "cache + speculation"}

// lighter mixes c with white: 0 is c itself.
func lighter(c color.RGBA, share float64) color.RGBA {
	mix := func(x uint8) uint8 { return uint8(math.Round(float64(x) + share*(255-float64(x)))) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255}
}

// barColor is the mode's, paler with fewer threads.
func (r *Report) barColor(row Row) color.RGBA {
	threads := r.threads()
	slices.Sort(threads)
	share := 0.0
	if n := len(threads); n > 1 {
		share = 0.55 * (1 - float64(slices.Index(threads, row.Threads))/float64(n-1))
	}
	return lighter(modeColor[row.Mode], share)
}

func style(points float64, c color.Color) text.Style {
	return text.Style{
		Color: c, Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, vg.Points(points)),
		Handler: text.Plain{Fonts: font.DefaultCache}, YAlign: draw.YBottom,
	}
}

// heading draws title and subtitle at the top of c and returns what is left.
func (r *Report) heading(c draw.Canvas, title string, subtitle ...string) draw.Canvas {
	y := c.Max.Y
	put := func(s text.Style, line string, gap vg.Length) {
		y -= s.Font.Size + gap
		c.FillText(s, vg.Point{X: c.Min.X, Y: y}, line)
	}
	put(style(15, ink), title, 0)
	for i, line := range subtitle {
		put(style(9.5, faintInk), line, vg.Length(5-i))
	}
	return draw.Crop(c, 0, 0, 0, y-c.Max.Y-10)
}

// subtitle says what was measured and where. whiskers is what the figure shows beside medians, "" for nothing.
func (r *Report) subtitle(whiskers string) []string {
	var threads []string
	for _, n := range r.threads() {
		read, fma := r.calibration(n)
		threads = append(threads, fmt.Sprintf("%s: read %.0f GB/s, multiply-add %.0f GFLOP/s", plural(n, "thread"), read.Median, fma.Median))
	}
	return []string{
		fmt.Sprintf("%s; %d prompt and %d new tokens, never fewer; medians of %s%s; %s",
			r.Model, r.PromptTokens, r.NewTokens, plural(r.Repeat, "measurement"), whiskers, r.Date.Format(time.DateOnly)),
		fmt.Sprintf("%s, %s, %s. %s", r.Machine.Processor, plural(r.Machine.Cores, "core"), r.Machine.System, strings.Join(threads, "; ")),
	}
}

// legendItem is a sample and its text.
type legendItem struct {
	label string
	draw  func(c draw.Canvas, center vg.Point)
}

// legend draws items in one line at the top of c and returns what is left.
func legend(c draw.Canvas, items []legendItem) draw.Canvas {
	s := style(9, ink)
	s.YAlign = draw.YCenter
	x, y := c.Min.X, c.Max.Y-6
	for _, item := range items {
		width := s.Width(item.label)
		if x > c.Min.X && x+17+width > c.Max.X {
			x, y = c.Min.X, y-15
		}
		item.draw(c, vg.Point{X: x + 6, Y: y})
		c.FillText(s, vg.Point{X: x + 17, Y: y + 1}, item.label)
		x += 17 + width + 13
	}
	return draw.Crop(c, 0, 0, 0, y-16-c.Max.Y)
}

func fillBox(c draw.Canvas, fill color.Color, x0, y0, x1, y1 vg.Length) {
	c.FillPolygon(fill, []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}})
}

// newPlot returns an empty plot in the figures' style.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.LineStyle.Width = faintInk, vg.Points(0.6)
		a.Tick.LineStyle.Color, a.Tick.LineStyle.Width = faintInk, vg.Points(0.6)
		a.Padding = 0
		tick, label := style(9.5, ink), style(10, ink)
		tick.XAlign, tick.YAlign = a.Tick.Label.XAlign, a.Tick.Label.YAlign
		label.XAlign, label.YAlign = a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign
		tick.Rotation, label.Rotation = a.Tick.Label.Rotation, a.Label.TextStyle.Rotation
		a.Tick.Label, a.Label.TextStyle = tick, label
	}
	p.Title.TextStyle = style(11, ink)
	p.Title.TextStyle.XAlign, p.Title.TextStyle.YAlign = draw.XCenter, draw.YTop
	p.Title.Padding = vg.Points(8)
	return p
}

// niceTicks returns round numbers from 0 to at least top.
func niceTicks(top float64) plot.ConstantTicks {
	if !(top > 0) {
		top = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(top/4)))
	for _, f := range []float64{1, 2, 2.5, 5, 10} {
		if 6*f*step >= top {
			step *= f
			break
		}
	}
	var ticks plot.ConstantTicks
	for i := 0; ; i++ {
		v := float64(i) * step
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.6g", v)})
		if v >= top {
			return ticks
		}
	}
}

// grid draws a line at every tick of the axes that are set.
type grid struct{ x, y []plot.Tick }

func (g grid) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	line := draw.LineStyle{Color: gridInk, Width: vg.Points(0.6)}
	for _, t := range g.x {
		c.StrokeLine2(line, toX(t.Value), c.Min.Y, toX(t.Value), c.Max.Y)
	}
	for _, t := range g.y {
		c.StrokeLine2(line, c.Min.X, toY(t.Value), c.Max.X, toY(t.Value))
	}
}

// bar is one bar of a panel: from 0 to height between left and right.
type bar struct {
	left, right, height, low, high float64
	fill                           color.Color
	label                          string
}

// bars draws bars with whiskers and the value above.
type bars []bar

func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	size := 8.5
	for _, x := range b {
		// Labels must not touch their neighbours'.
		for s := style(size, ink); size > 5 && s.Width(x.label) > 0.96*(toX(x.right)-toX(x.left)); s = style(size, ink) {
			size -= 0.25
		}
	}
	s := style(size, ink)
	s.XAlign = draw.XCenter
	whisker := draw.LineStyle{Color: ink, Width: vg.Points(0.7)}
	for _, x := range b {
		left, right, mid := toX(x.left), toX(x.right), toX((x.left+x.right)/2)
		fillBox(c, x.fill, left+0.5, toY(0), right-0.5, toY(x.height))
		if toY(x.high)-toY(x.low) > 1 {
			c.StrokeLine2(whisker, mid, toY(x.low), mid, toY(x.high))
			for _, y := range []float64{x.low, x.high} {
				c.StrokeLine2(whisker, mid-2.5, toY(y), mid+2.5, toY(y))
			}
		}
		c.FillText(s, vg.Point{X: mid, Y: toY(max(x.height, x.high)) + 2}, x.label)
	}
}

// drawLatency draws the time of a completion request: a panel without cache and one with, since their scales differ by far.
func (r *Report) drawLatency(c draw.Canvas) error {
	c = r.heading(c, "Time of a completion request", r.subtitle(", whiskers from smallest to largest")...)
	var items []legendItem
	seen := map[string]bool{}
	for _, row := range r.Rows {
		label := fmt.Sprintf("%s, %s", modeText[row.Mode], plural(row.Threads, "thread"))
		if fill := r.barColor(row); !seen[label] {
			seen[label] = true
			items = append(items, legendItem{label, func(c draw.Canvas, p vg.Point) { fillBox(c, fill, p.X-5, p.Y-5, p.X+5, p.Y+5) }})
		}
	}
	c = legend(c, items)
	var panels [][]Row
	var titles []string
	for _, panel := range []struct {
		title string
		holds func(Mode) bool
	}{
		{"No cache: every token evaluates the whole text again", func(m Mode) bool { return m == Uncached }},
		{"With a cache of keys and values", func(m Mode) bool { return m != Uncached }},
	} {
		var rows []Row
		for _, row := range r.Rows {
			if panel.holds(row.Mode) {
				rows = append(rows, row)
			}
		}
		if len(rows) > 0 {
			panels, titles = append(panels, rows), append(titles, panel.title)
		}
	}
	// Panels share the width by the number of their bars, but every title needs its own.
	const gap = 22
	total, width := 0.0, c.Max.X-c.Min.X-vg.Length(gap*(len(panels)-1))
	share := make([]float64, len(panels))
	for i, rows := range panels {
		share[i] = float64(len(rows)) + 4
		total += share[i]
	}
	x := c.Min.X
	for i, rows := range panels {
		w := width * vg.Length(share[i]/total)
		p := r.barPanel(rows)
		p.Title.Text = titles[i]
		p.Draw(draw.Crop(c, x-c.Min.X, x+w-c.Max.X, 0, 0))
		x += w + gap
	}
	return nil
}

// barPanel groups the bars of rows by format.
func (r *Report) barPanel(rows []Row) *plot.Plot {
	p := newPlot()
	top := 0.0
	for _, row := range rows {
		top = max(top, row.Request.Max)
	}
	unit, scale := "seconds", 1.0
	if top < 1 {
		unit, scale = "milliseconds", 1e3
	}
	var groups []string
	perGroup := map[string]int{}
	widest := 0
	for _, row := range rows {
		if !slices.Contains(groups, row.format()) {
			groups = append(groups, row.format())
		}
		perGroup[row.format()]++
		widest = max(widest, perGroup[row.format()])
	}
	var b bars
	next := map[string]int{}
	for _, row := range rows {
		width := 0.82 / float64(widest)
		left := float64(slices.Index(groups, row.format())) - width*float64(perGroup[row.format()])/2 + width*float64(next[row.format()])
		next[row.format()]++
		b = append(b, bar{left, left + width, scale * row.Request.Median, scale * row.Request.Min, scale * row.Request.Max,
			r.barColor(row), shortNumber(scale * row.Request.Median)})
	}
	ticks := niceTicks(1.06 * scale * top)
	p.Y.Tick.Marker, p.Y.Min, p.Y.Max = ticks, 0, ticks[len(ticks)-1].Value
	p.Y.Label.Text = unit
	var names plot.ConstantTicks
	for i, g := range groups {
		names = append(names, plot.Tick{Value: float64(i), Label: g})
	}
	p.X.Tick.Marker, p.X.Tick.Length, p.X.Tick.LineStyle.Width = names, 4, 0
	p.X.Min, p.X.Max = -0.55, float64(len(groups))-0.45
	p.Add(grid{y: ticks}, b)
	return p
}

// shortNumber writes x with two or three significant digits.
func shortNumber(x float64) string {
	switch {
	case x >= 10:
		return fmt.Sprintf("%.0f", x)
	case x >= 1:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// point is a variant in the memory figure.
type point struct {
	x, y float64
	row  Row
}

// series is the points of one format.
type series struct {
	name   string
	color  color.RGBA
	points []point
}

// scatter draws series with a name beside each.
type scatter []series

// glyph returns the shape of a mode, hollow for one thread where there are several numbers of them.
func glyph(c draw.Canvas, m Mode, clr color.Color, hollow bool, at vg.Point) {
	filled := map[Mode]draw.GlyphDrawer{Uncached: draw.BoxGlyph{}, Cached: draw.CircleGlyph{}, Speculative: draw.PyramidGlyph{}}[m]
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: clr, Radius: 5.5, Shape: filled}, at)
	if hollow {
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: color.White, Radius: 3.4, Shape: filled}, at)
	}
}

func (s scatter) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	type label struct {
		y   vg.Length
		i   int
		end vg.Point
	}
	var labels []label
	for i, one := range s {
		var line []vg.Point
		for _, q := range one.points {
			line = append(line, vg.Point{X: toX(q.x), Y: toY(q.y)})
		}
		slices.SortStableFunc(line, func(a, b vg.Point) int { return int(math.Copysign(1, float64(a.X-b.X))) })
		c.StrokeLines(draw.LineStyle{Color: lighter(one.color, 0.6), Width: vg.Points(1.2)}, line)
		end := line[len(line)-1]
		labels = append(labels, label{end.Y, i, end})
	}
	threads := 0
	for _, one := range s {
		for _, q := range one.points {
			threads = max(threads, q.row.Threads)
		}
	}
	for _, one := range s {
		for _, q := range one.points {
			glyph(c, q.row.Mode, one.color, q.row.Threads < threads, vg.Point{X: toX(q.x), Y: toY(q.y)})
		}
	}
	// Names stand right of the fastest point, pushed apart where they would overlap.
	name := style(11, ink)
	name.YAlign = draw.YCenter
	slices.SortFunc(labels, func(a, b label) int { return int(math.Copysign(1, float64(a.y-b.y))) })
	for i := 1; i < len(labels); i++ {
		labels[i].y = max(labels[i].y, labels[i-1].y+13)
	}
	for _, l := range labels {
		name.Color = s[l.i].color
		at := vg.Point{X: l.end.X + 12, Y: l.y}
		if math.Abs(float64(l.y-l.end.Y)) > 2 {
			c.StrokeLine2(draw.LineStyle{Color: gridInk, Width: vg.Points(0.8)}, l.end.X+6, l.end.Y, at.X-1, l.y)
		}
		c.FillText(name, at, s[l.i].name)
	}
}

// drawMemory draws peak memory against decoding speed.
func (r *Report) drawMemory(c draw.Canvas) error {
	c = r.heading(c, "Peak memory against decoding speed", r.subtitle("")...)
	var s scatter
	var items []legendItem
	var right, top float64
	seen := map[string]bool{}
	most := slices.Max(r.threads())
	for _, row := range r.Rows {
		i := slices.IndexFunc(s, func(x series) bool { return x.name == row.format() })
		if i < 0 {
			i = len(s)
			s = append(s, series{name: row.format(), color: palette[i%len(palette)]})
		}
		q := point{row.Decode.Median, row.Peak.Median, row}
		s[i].points = append(s[i].points, q)
		right, top = max(right, q.x), max(top, q.y)
		label := fmt.Sprintf("%s, %s", modeText[row.Mode], plural(row.Threads, "thread"))
		if !seen[label] {
			seen[label] = true
			items = append(items, legendItem{label, func(c draw.Canvas, at vg.Point) { glyph(c, row.Mode, faintInk, row.Threads < most, at) }})
		}
	}
	c = legend(c, items)
	unit, scale := "MB", 1e6
	if top >= 2e9 {
		unit, scale = "GB", 1e9
	}
	for i := range s {
		for j := range s[i].points {
			s[i].points[j].y /= scale
		}
	}
	p := newPlot()
	x, y := niceTicks(1.1*right), niceTicks(1.08*top/scale)
	p.X.Tick.Marker, p.X.Min, p.X.Max = x, 0, x[len(x)-1].Value
	p.Y.Tick.Marker, p.Y.Min, p.Y.Max = y, 0, y[len(y)-1].Value
	p.X.Label.Text = "decoded tokens a second (better to the right)"
	p.Y.Label.Text = fmt.Sprintf("peak memory of the process, %s (better below)", unit)
	p.X.Label.Padding, p.Y.Label.Padding = vg.Points(4), vg.Points(4)
	p.Add(grid{x: x, y: y}, s)
	p.Draw(c)
	return nil
}

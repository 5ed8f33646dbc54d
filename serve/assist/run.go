package assist

import (
	"context"
	"errors"
	"path"
	"strings"

	"autodev/infer"
)

// Format is the form of prose.
type Format string

const (
	Text Format = "text" // Markdown as the model writes it
	HTML Format = "html"
)

// Edit is a change to a file. An editor applies it whole or not at all.
type Edit struct {
	Place   Place  `json:"place"`
	Range   *Range `json:"range,omitempty"` // what NewText replaces; of New, and where the request named none, absent
	File    string `json:"file,omitempty"`  // of New: a name for the file
	NewText string `json:"newText"`
}

// Answer is a whole answer.
type Answer struct {
	Text  string // what was emitted, joined
	Edit  *Edit  // of code; nil when there is an error
	Reply Reply
	Model string
}

// InvalidError says that a request cannot be served, whatever the model does.
type InvalidError struct{ Field, Text string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Text }

// ErrNoCode says that a model was asked for code and answered without any.
var ErrNoCode = errors.New("the model's answer holds no code: nothing was changed")

// ErrCancelled says that an answer was ended before the model had: by a later request of the same session.
var ErrCancelled = errors.New("the answer was cancelled: nothing was changed")

// ErrTruncated says that an answer has reached its limit before the code was complete.
var ErrTruncated = errors.New("the model's answer was cut off before the code was complete: nothing was changed")

// ErrCircles says that code began to repeat itself without end.
var ErrCircles = errors.New("the model's answer goes round in circles: nothing was changed")

// ErrChanged says that code was to be documented and was changed.
var ErrChanged = errors.New("the model's answer changes the code and not only its documentation: nothing was changed")

// errLoop ends an answer that goes round in circles.
var errLoop = errors.New("the answer goes round in circles")

// Run applies f to r. emit gets the answer as it becomes certain: prose in the given format, or code as it will stand in the file. A failed answer of
// code has no Edit, so that what was selected stays. The Answer is what there is when Run returns, error or not.
func (f *Function) Run(ctx context.Context, b Backend, r Request, format Format, seed uint64, emit func(text string) error) (Answer, error) {
	a := Answer{Model: b.Model(), Reply: Reply{Finish: FinishCancel}}
	r = r.valid()
	if r.Language == "" && r.File == "" {
		r.Language = guessLanguage(r.Selection)
	}
	if strings.TrimSpace(r.Selection) == "" {
		return a, &InvalidError{"selection", "found no text, expected the code that " + f.Name + " is to be applied to"}
	}
	var text strings.Builder
	show := func(s string) error {
		if s == "" {
			return nil
		}
		text.WriteString(s)
		if emit == nil {
			return nil
		}
		return emit(s)
	}
	var err error
	for room := around; ; room /= 2 {
		if room < 100 {
			room = 0
		}
		a.Reply, err = f.ask(ctx, b, r.narrow(room), r, format, seed, show)
		var tooLong *TooLongError
		if errors.As(err, &tooLong) && room > 0 && text.Len() == 0 {
			continue
		}
		break
	}
	a.Text = text.String()
	if err != nil || f.Output != Code {
		return a, err
	}
	if f.Comments && changed(r, a.Text) {
		return a, ErrChanged
	}
	a.Edit = f.edit(r, a.Text)
	return a, nil
}

// ask makes one attempt, with the surroundings of narrow.
func (f *Function) ask(ctx context.Context, b Backend, narrow, r Request, format Format, seed uint64, show func(string) error) (Reply, error) {
	prompt := newPrompt(r)
	prompt.Before, prompt.After = narrow.Before, narrow.After
	messages, base, err := f.render(b.Model(), prompt)
	if err != nil {
		return Reply{Finish: FinishCancel}, err
	}
	q := Query{Messages: messages, Stop: f.Stop, MaxTokens: f.MaxTokens, Temperature: f.Temperature, Seed: seed}
	if !b.Base() {
		base = ""
	}
	p := f.newPipe(r, prompt, format, base != "", show)
	if base != "" {
		base = strings.TrimRight(base, " \t\n")
		if q.Base = base; f.Output == Code {
			q.Base += "\n"
			q.Stop = append([]string{"\n" + prompt.ticks()}, q.Stop...)
		} else {
			q.Stop = append([]string{"\n```", "\n#"}, q.Stop...)
			// How the answer begins stands at the end of the text.
			if begun := base[strings.LastIndexByte(base, '\n')+1:]; !heading(begun) {
				p.prelude = begun
			}
		}
	}
	reply, err := b.Answer(ctx, q, p.push)
	if errors.Is(err, errLoop) {
		reply.Finish, err = FinishLoop, nil
	}
	if err == nil && reply.Finish == FinishCancel {
		err = ErrCancelled
	}
	if err == nil {
		err = p.flush()
	}
	if err == nil && p.code != nil {
		err = p.judge(reply.Finish)
	}
	return reply, err
}

// changed says whether text differs from what r selects in more than documentation, as far as that can be told.
func changed(r Request, text string) bool {
	file := "x" + path.Ext(languageOf(r.Language, r.File).file)
	was, known := infer.CodeOnly(file, r.Selection)
	is, _ := infer.CodeOnly(file, text)
	return known && was != is
}

// edit returns the change that text makes.
func (f *Function) edit(r Request, text string) *Edit {
	e := &Edit{Place: f.Place, NewText: text}
	switch {
	case f.Place == New:
		e.File = languageOf(r.Language, r.File).testFile(r.File)
	case r.Range != nil && f.Place == Below:
		e.Range = &Range{r.Range.End, r.Range.End}
	default:
		e.Range = r.Range
	}
	return e
}

// pipe is an answer on its way through its stages.
type pipe struct {
	stages  []stage
	show    func(string) error
	code    *extractor // nil for prose
	circles *circles   // nil for prose
	loops   *loops     // nil for code, which may repeat itself and is useless when a part is left out
	prelude string     // shown before the answer
}

func (f *Function) newPipe(r Request, prompt Prompt, format Format, base bool, show func(string) error) *pipe {
	p := &pipe{show: show}
	if !base {
		p.stages = append(p.stages, &thoughts{})
	}
	switch {
	case f.Output == Code:
		lang := languageOf(r.Language, r.File)
		first, _, _ := strings.Cut(prompt.shape.text, "\n")
		p.code = &extractor{first: strings.TrimSpace(first), shell: lang.Fence == "bash", whole: true}
		if f.Place != Replace {
			p.code.first = ""
		}
		if base {
			p.code.state, p.code.fence = inside, fence{mark: '`', length: len(prompt.ticks())}
		}
		p.circles = newCircles(r.Selection)
		p.stages = append(p.stages, p.code, newReindenter(r, f.Place))
	default:
		p.loops = &loops{text: infer.NewLoops()}
		p.stages = append(p.stages, p.loops)
		if format == HTML {
			p.stages = append(p.stages, &htmlStream{})
		}
	}
	return p
}

func (p *pipe) push(piece string) error {
	if p.prelude != "" && piece != "" {
		piece, p.prelude = p.prelude+piece, ""
	}
	ended := false
	if p.circles != nil {
		var n int
		n, ended = p.circles.push(piece)
		piece = piece[:n]
	}
	if err := p.through(0, piece); err != nil {
		return err
	}
	if ended || p.loops != nil && p.loops.ended {
		return errLoop
	}
	return nil
}

// through brings a piece through the stages from the i-th on.
func (p *pipe) through(i int, piece string) error {
	for _, s := range p.stages[i:] {
		if piece == "" {
			return nil
		}
		piece = s.push(piece)
	}
	return p.show(piece)
}

// flush ends the answer.
func (p *pipe) flush() error {
	for i, s := range p.stages {
		if err := p.through(i+1, s.flush()); err != nil {
			return err
		}
	}
	return nil
}

// judge says what is wrong with code that has ended.
func (p *pipe) judge(finish Finish) error {
	switch {
	case finish == FinishLength && !p.code.closed:
		return ErrTruncated
	case finish == FinishLoop && !p.code.closed:
		return ErrCircles
	case !p.code.found:
		return ErrNoCode
	}
	return nil
}

// loops leaves out the rounds of prose that goes round in circles, as small models' does.
type loops struct {
	text  *infer.Loops
	ended bool
}

func (l *loops) push(piece string) (show string) {
	if !l.ended {
		show, l.ended = l.text.Push(piece)
	}
	return show
}

func (l *loops) flush() string {
	if l.ended {
		return ""
	}
	return l.text.Flush()
}

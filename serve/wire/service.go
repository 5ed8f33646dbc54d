package wire

import (
	"context"
	"net/http"
	"time"

	"autodev/infer"
	"autodev/infer/chat"
)

// Engine generates completions: *infer.Engine, or a stand-in. Its methods may be called from any goroutine.
type Engine interface {
	Info() infer.Info
	// Complete generates a completion for every request and calls emit, unless it is nil, with the chunks of request i,
	// one call at a time.
	Complete(ctx context.Context, reqs []infer.Request, emit func(i int, c infer.Chunk) error) ([]infer.Result, error)
	Decode(ids []int32) string
	TokenText(id int32) []byte
	// Encode returns the tokens of text. Control tokens are recognised in it only when special says so, which is never for text of a user.
	Encode(text string, special bool) []int32
}

// Message is one turn of a conversation.
type Message = chat.Message

// Chat turns conversations into prompts of a model.
type Chat interface {
	// Prompt returns the prompt that the model answers a conversation with, and texts that end its answer. No content is searched for control
	// tokens.
	Prompt(messages []Message) (infer.Prompt, []string, error)
	// StopIDs returns tokens that end the model's answers, beside its own end of text.
	StopIDs() []int32
	// Render returns the prompt as text, control tokens spelled out.
	Render(messages []Message) (string, error)
	// Template returns the template's source, "" where the model has none of its own.
	Template() string
}

// Model is what a client's model name stands for.
type Model struct {
	ID        string
	Engine    Engine
	Adapter   string // of infer.Request; "" is the model as it is
	Path      string // as the user named it
	Created   time.Time
	Order     infer.Order // of prompts with a suffix
	Speculate infer.Speculate
	Shape     infer.Shape // of completions with a suffix, unless a request says otherwise
	Heal      bool        // infer.Prompt's, of completions with a suffix, unless a request says otherwise
	Reuse     bool        // infer.Request's, likewise: a shown suggestion that is typed along is answered with its rest
	Chat      Chat        // nil: the model cannot converse
}

// Service holds the models.
type Service interface {
	// Models lists what can be asked for, the default first. There is at least one.
	Models() []Model
	// Use returns the model of a name, and keeps it until release is called. "" is the default. What other names stand for that are none of
	// Models' is the service's choice: the default, or an *Error.
	Use(name string) (m Model, release func(), err error)
}

// Route is one method of one path of a protocol.
type Route struct {
	Method string
	Path   string // as of http.ServeMux, without a method
	// Claims says which calls are the route's, where several protocols have the path: those with Claims are asked first, and one without
	// gets the rest. nil claims all.
	Claims func(*Call) bool
	// Admin says that the route changes what others get: it is for those who run the server. Such a route claims all calls.
	Admin bool
	// Handle answers. What it returns is answered in the protocol's form, unless an answer has begun: then it is logged.
	Handle func(*Call) error
}

// Protocol is a wire format.
type Protocol struct {
	Name   string // for logs and metrics
	Routes []Route
	// Fault returns the JSON body of a failure.
	Fault func(*Error) any
	// Refusal, unless it is nil, returns what a call is answered in place of Fault, where its clients do not read JSON.
	Refusal func(*Call, *Error) (contentType, body string)
}

// Limits bound a call. Numbers are positive.
type Limits struct {
	MaxBody      int64         // bytes of a request
	Room         *Room         // for the bodies of all calls; nil: as much as they want
	BodyTimeout  time.Duration // for a request's body to arrive
	StallTimeout time.Duration // for a client to take an answer, or a part of a stream
}

// Record is what a call leaves for logs and metrics. It holds no text of a user.
type Record struct {
	Protocol, Route string // the route's path as registered
	Method          string
	Status          int
	Model, Adapter  string
	Client          string
	Took            time.Duration
	FirstText       time.Duration // from the call's beginning to the first text of an answer; 0: there was none
	Stream          bool
	Results         []infer.Result
	Err             error
}

// NewCall returns a call of the route that protocol p has for r.
func NewCall(w http.ResponseWriter, r *http.Request, s Service, l Limits) *Call {
	return &Call{W: w, R: r, Service: s, limits: l, began: time.Now()}
}

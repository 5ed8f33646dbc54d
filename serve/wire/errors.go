package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"autodev/infer"
)

// Kind says whose mistake a failure is, in OpenAI's words.
type Kind string

const (
	Invalid      Kind = "invalid_request_error"
	Unauthorized Kind = "authentication_error"
	Forbidden    Kind = "permission_error"
	Unsupported  Kind = "not_supported_error"
	Overload     Kind = "overloaded_error"
	Fault        Kind = "server_error"
)

// Error is a failure before a protocol gives it its form.
type Error struct {
	Status     int
	RetryAfter time.Duration // when it is worth trying again; 0: not said
	Kind       Kind
	Param      string // the field at fault, "" if it is none
	Code       string // a word for programs
	Message    string
}

func (e *Error) Error() string { return e.Message }

// StatusClientLeft is the log's status of a request whose client went away (nginx's number); nobody receives it.
const StatusClientLeft = 499

// ErrShutdown is the cause of contexts that end because the server stops.
var ErrShutdown = errors.New("the server is shutting down")

// Errorf returns an Error.
func Errorf(status int, kind Kind, param, code, format string, args ...any) *Error {
	return &Error{Status: status, Kind: kind, Param: param, Code: code, Message: fmt.Sprintf(format, args...)}
}

// BadField says that a field of the body cannot be used.
func BadField(name, format string, args ...any) *Error {
	return Errorf(http.StatusBadRequest, Invalid, name, "invalid_value", "%s: %s", name, fmt.Sprintf(format, args...))
}

// AsError translates an error of the engine.
func AsError(err error) *Error {
	var own *Error
	var option *infer.OptionError
	var tooLong *infer.PromptTooLongError
	var busy *infer.BusyError
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &option):
		return Errorf(http.StatusBadRequest, Invalid, option.Option, "invalid_value", "%s", err)
	case errors.As(err, &tooLong):
		return Errorf(http.StatusBadRequest, Invalid, "prompt", "context_length_exceeded", "%s", err)
	case errors.As(err, &busy):
		e := Errorf(http.StatusTooManyRequests, Overload, "", "busy", "%s", err)
		e.RetryAfter = busy.RetryAfter
		return e
	case errors.Is(err, ErrShutdown):
		e := Errorf(http.StatusServiceUnavailable, Overload, "", "shutting_down", "%s", ErrShutdown)
		e.RetryAfter = time.Second
		return e
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Errorf(StatusClientLeft, Fault, "", "cancelled", "the request was cancelled")
	}
	return Errorf(http.StatusInternalServerError, Fault, "", "internal_error", "%s", err)
}

// OpenAIFault is a failure as OpenAI's clients, and those of most others, read it.
func OpenAIFault(e *Error) any {
	type fault struct {
		Message string  `json:"message"`
		Type    Kind    `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	return map[string]fault{"error": {e.Message, e.Kind, Optional(e.Param), Optional(e.Code)}}
}

// Optional returns nil for "", which JSON writes as null.
func Optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// retryAfter says in the header when it is worth trying again.
func (e *Error) retryAfter(w http.ResponseWriter) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
}

// WriteError answers with e in the form of p.
func WriteError(w http.ResponseWriter, p *Protocol, e *Error) {
	e.retryAfter(w)
	fault := OpenAIFault
	if p != nil && p.Fault != nil {
		fault = p.Fault
	}
	WriteJSON(w, e.Status, fault(e))
}

// WriteJSON writes v as one line. A client that has gone is noticed by its context.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

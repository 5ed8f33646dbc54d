package serve

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

// apiError is a failure as OpenAI's clients read it.
type apiError struct {
	status     int
	retryAfter time.Duration

	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.Message }

const (
	typeInvalid  = "invalid_request_error"
	typeOverload = "overloaded_error"
	typeServer   = "server_error"
)

// statusClientLeft is the log's status of a request whose client went away (nginx's number); nobody receives it.
const statusClientLeft = 499

var errShutdown = errors.New("the server is shutting down")

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func newError(status int, kind, param, code, format string, args ...any) *apiError {
	return &apiError{status: status, Type: kind, Param: optional(param), Code: optional(code), Message: fmt.Sprintf(format, args...)}
}

// badField says that a field of the body cannot be used.
func badField(name, format string, args ...any) *apiError {
	return newError(http.StatusBadRequest, typeInvalid, name, "invalid_value", "%s: %s", name, fmt.Sprintf(format, args...))
}

// asAPIError translates an error of the engine.
func asAPIError(err error) *apiError {
	var api *apiError
	var option *infer.OptionError
	var tooLong *infer.PromptTooLongError
	var busy *infer.BusyError
	switch {
	case errors.As(err, &api):
		return api
	case errors.As(err, &option):
		return newError(http.StatusBadRequest, typeInvalid, option.Option, "invalid_value", "%s", err)
	case errors.As(err, &tooLong):
		return newError(http.StatusBadRequest, typeInvalid, "prompt", "context_length_exceeded", "%s", err)
	case errors.As(err, &busy):
		e := newError(http.StatusTooManyRequests, typeOverload, "", "busy", "%s", err)
		e.retryAfter = busy.RetryAfter
		return e
	case errors.Is(err, errShutdown):
		e := newError(http.StatusServiceUnavailable, typeOverload, "", "shutting_down", "%s", errShutdown)
		e.retryAfter = time.Second
		return e
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return newError(statusClientLeft, typeServer, "", "cancelled", "the request was cancelled")
	}
	return newError(http.StatusInternalServerError, typeServer, "", "internal_error", "%s", err)
}

type errorBody struct {
	Error *apiError `json:"error"`
}

func (e *apiError) write(w http.ResponseWriter) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.retryAfter.Seconds()))))
	}
	writeJSON(w, e.status, errorBody{e})
}

// writeJSON writes v as one line. A client that has gone is noticed by its context.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = encoder(w).Encode(v)
}

func encoder(w http.ResponseWriter) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

package autodevv1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/text/encoding/ianaindex"

	"autodev/serve/wire"
)

// maxFields bounds a form, and maxBoundary, in bytes, what stands between its parts: RFC 2046 has 70, and longer ones are searched for slowly.
const (
	maxFields   = 64
	maxBoundary = 200
)

// form is a body: fields by name. Of several with one name the first counts, as in Flask.
type form map[string]string

// readForm reads a call's body.
func readForm(c *wire.Call) (form, error) {
	body, err := c.Body()
	if err != nil {
		return nil, err
	}
	return parseForm(c.R.Header.Get("Content-Type"), body)
}

// parseForm reads a body of a content type. Where that names no boundary, or there is none, a body that begins with a line of two hyphens and
// more is multipart all the same.
func parseForm(contentType string, body []byte) (form, error) {
	media, parameters, err := mime.ParseMediaType(contentType)
	if contentType != "" && err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return nil, malformed("content type: expected multipart/form-data with a boundary, or application/x-www-form-urlencoded")
	}
	boundary := parameters["boundary"]
	if boundary == "" && (media == "" || media == "multipart/form-data") {
		line, _, _ := bytes.Cut(body, []byte("\n"))
		if rest, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r"), []byte("--")); ok {
			media, boundary = "multipart/form-data", string(rest)
		}
	}
	switch {
	case len(boundary) > maxBoundary:
		return nil, malformed("content type: found a boundary of %d bytes, expected at most %d", len(boundary), maxBoundary)
	case media == "multipart/form-data" && boundary != "":
		return parseMultipart(body, boundary)
	case media == "multipart/form-data":
		return nil, malformed("content type: multipart/form-data without a boundary")
	case media == "application/x-www-form-urlencoded" || media == "":
		return parseURLEncoded(body)
	}
	return nil, wire.Errorf(http.StatusUnsupportedMediaType, wire.Invalid, "", "unsupported_media_type",
		"content type: expected multipart/form-data with a boundary, or application/x-www-form-urlencoded")
}

func malformed(format string, args ...any) error {
	return wire.Errorf(http.StatusBadRequest, wire.Invalid, "", "invalid_form", format, args...)
}

func parseURLEncoded(body []byte) (form, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, malformed("body: malformed urlencoded form")
	}
	if len(values) > maxFields {
		return nil, malformed("body: found %d fields, expected at most %d", len(values), maxFields)
	}
	f := form{}
	for name, all := range values {
		f[name] = strings.ToValidUTF8(all[0], "\uFFFD")
	}
	return f, nil
}

func parseMultipart(body []byte, boundary string) (form, error) {
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	f := form{}
	for n := 0; ; n++ {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			if !bytes.Contains(body, []byte("--"+boundary+"--")) {
				return nil, malformed("body: the form has no end")
			}
			return f, nil
		}
		if err != nil {
			return nil, malformed("body: part %d: malformed multipart form", n)
		}
		if n == maxFields {
			return nil, malformed("body: found more than %d parts, expected at most that", maxFields)
		}
		raw, err := io.ReadAll(part)
		if err != nil {
			return nil, malformed("body: part %d: it has no end", n)
		}
		name := part.FormName()
		if _, twice := f[name]; name == "" || twice {
			continue
		}
		if f[name], err = decode(raw, part.Header.Get("Content-Type")); err != nil {
			return nil, malformed("body: part %d: %v", n, err)
		}
	}
}

// decode returns a part's text. Without a character set it is UTF-8.
func decode(raw []byte, contentType string) (string, error) {
	_, parameters, err := mime.ParseMediaType(contentType)
	charset := parameters["charset"]
	if err != nil || charset == "" || strings.EqualFold(charset, "utf-8") {
		return strings.ToValidUTF8(string(raw), "\uFFFD"), nil
	}
	e, err := ianaindex.MIME.Encoding(charset)
	if err != nil || e == nil {
		return "", errors.New("found a character set that is not known, expected one of IANA's names, such as UTF-8 or ISO-8859-1")
	}
	text, err := e.NewDecoder().Bytes(raw)
	if err != nil {
		return "", fmt.Errorf("found bytes that are not in the part's character set")
	}
	return strings.ToValidUTF8(string(text), "\uFFFD"), nil
}

// typed are the fields that are no text.
var typed = []string{"max_tokens", "heal", "no_overlap", "no_loops", "n_indent", "reuse"}

// fields returns the form as other protocols have their bodies.
func (f form) fields() (*wire.Fields, error) {
	values := map[string]any{}
	for name, v := range f {
		values[name] = v
	}
	for _, name := range typed {
		v, ok := f[name]
		var number float64
		var flag bool
		switch {
		case !ok:
		case v == "":
			delete(values, name)
		case json.Unmarshal([]byte(v), &number) == nil, json.Unmarshal([]byte(v), &flag) == nil:
			values[name] = json.RawMessage(v)
		}
	}
	body, err := json.Marshal(values)
	if err != nil {
		return nil, malformed("body: malformed form")
	}
	return wire.ParseFields(body)
}

package autodevv1

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"
)

func TestForms(t *testing.T) {
	part := func(header, text string) string {
		return "--B\r\nContent-Disposition: form-data; " + header + "\r\n\r\n" + text + "\r\n"
	}
	const multi = "multipart/form-data; boundary=B"
	for _, c := range []struct {
		contentType, body string
		want              form
	}{
		{multi, part(`name="a"`, "größe\r\n--C-- is no end\n") + part(`name="b"`, "") + "--B--", form{"a": "größe\r\n--C-- is no end\n", "b": ""}},
		{multi, part("name=a\r\nContent-Type: text/plain; charset=ISO-8859-1", "gr\xf6\xdfe \x80") + "--B--\r\n", form{"a": "größe \u0080"}},
		{multi, part("name=a\r\nContent-Type: text/plain; charset=windows-1252\r\nContent-Transfer-Encoding: 8bit", "\x80") + "--B--\r\n", form{"a": "€"}},
		{multi, part("name=a\r\nContent-Type: text/plain; charset=UTF-8", "€ \xff") + "--B--\r\n", form{"a": "€ \uFFFD"}},
		{multi, part(`name="a"`, "first") + part(`name="a"`, "second") + part("filename=x", "nameless") + "--B--", form{"a": "first"}},
		{"", part(`name="a"`, "x") + "--B--", form{"a": "x"}},
		{"multipart/form-data", part(`name="a"`, "x") + "--B--", form{"a": "x"}},
		{"application/x-www-form-urlencoded", "a=gr%C3%B6%C3%9Fe+1&b=&a=2&c=%FF", form{"a": "größe 1", "b": "", "c": "\uFFFD"}},
		{"application/x-www-form-urlencoded; charset=utf-8", "", form{}},
		{"", "a=x", form{"a": "x"}},
	} {
		if got, err := parseForm(c.contentType, []byte(c.body)); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%q %q: %q %v, expected %q", c.contentType, c.body, got, err, c.want)
		}
	}
	for _, c := range []struct {
		contentType, body string
		status            int
		message           string
	}{
		{"application/json", `{"a":1}`, 415, "content type: expected multipart/form-data with a boundary, or application/x-www-form-urlencoded"},
		{"; secret", "", 400, "content type: expected multipart/form-data with a boundary, or application/x-www-form-urlencoded"},
		{"multipart/form-data", "secret", 400, "content type: multipart/form-data without a boundary"},
		{multi, "secret", 400, "body: the form has no end"},
		{"", "--" + strings.Repeat("b", 201) + "\r\n", 400, "content type: found a boundary of 201 bytes, expected at most 200"},
		{multi, part("broken", "")[:40], 400, "body: the form has no end"},
		{multi, "--B\r\nno header\r\n\r\nsecret\r\n--B--", 400, "body: part 0: malformed multipart form"},
		{multi, part(`name="a"`, "secret"), 400, "body: part 0: it has no end"},
		{multi, part("name=a\r\nContent-Type: text/plain; charset=secret", "x") + "--B--", 400, "body: part 0: found a character set that is not known, expected one of IANA's names, such as UTF-8 or ISO-8859-1"},
		{multi, strings.Repeat(part(`name="a"`, "x"), 65) + "--B--", 400, "body: found more than 64 parts, expected at most that"},
		{"application/x-www-form-urlencoded", "a=%zz", 400, "body: malformed urlencoded form"},
		{"application/x-www-form-urlencoded", fields(65), 400, "body: found 65 fields, expected at most 64"},
	} {
		_, err := parseForm(c.contentType, []byte(c.body))
		var own *wire.Error
		if !errors.As(err, &own) || own.Status != c.status || own.Message != c.message {
			t.Errorf("%q %q: %v, expected %d %s", c.contentType, c.body, err, c.status, c.message)
		}
	}
}

func fields(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("f%d=x", i))
	}
	return strings.Join(all, "&")
}

func FuzzForm(f *testing.F) {
	for _, s := range []struct{ contentType, body string }{
		{"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=\"prefix\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n\r\nx\xf6\r\n--B--\r\n"},
		{"", "--autocode___\r\nContent-Disposition: form-data; name=\"prefix\"\r\n\r\nx\r\n--autocode___--"},
		{"application/x-www-form-urlencoded", "prefix=a%20b&suffix=c&filename=x.py&max_tokens=7&heal=true&lines=one&files=[]"},
		{"multipart/form-data", "--"}, {"text/plain", ""}, {"application/x-www-form-urlencoded", "prefix=&max_tokens=many"},
	} {
		f.Add(s.contentType, []byte(s.body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		check := func(err error) {
			var own *wire.Error
			if err != nil && (!errors.As(err, &own) || own.Status != 400 && own.Status != 415 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r")) {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
		}
		got, err := parseForm(contentType, body)
		check(err)
		for name, v := range got {
			if !utf8.ValidString(v) {
				t.Fatalf("field %q: %q", name, v)
			}
		}
		if err != nil {
			return
		}
		fields, err := got.fields()
		check(err)
		if err == nil {
			q, err := completion(fields, infer.Shape{})
			check(err)
			if err == nil && (q.Prompt.Prefix != got["prefix"] || q.Prompt.Suffix != got["suffix"] || q.MaxTokens < 0) {
				t.Fatalf("%+v of %q", q, got)
			}
		}
	})
}

package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"text/template"

	"autodev/serve/metrics"
	"autodev/serve/wire"
)

//go:embed assets
var assets embed.FS

// scripts are the page's, in the order in which they are put together.
var scripts = []string{"net.js", "highlight.js", "editor.js", "complete.js", "markdown.js", "diff.js", "assist.js", "status.js", "main.js"}

// Options of a page.
type Options struct {
	Version  string                 // of the program
	Summary  func() metrics.Summary // what the server has done
	Draining func() bool            // nil: never
}

// New returns the protocol: GET / for browsers and GET /v1/status.
func New(o Options) (*wire.Protocol, error) {
	html, policy, err := build()
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	sum := sha256.Sum256(html)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return &wire.Protocol{Name: "page", Fault: wire.OpenAIFault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/{$}", Claims: browser, Handle: func(c *wire.Call) error {
			h := c.W.Header()
			h.Set("Content-Security-Policy", policy)
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cache-Control", "no-cache")
			h.Add("Vary", "Accept") // others ask for / too
			h.Set("ETag", tag)
			if c.R.Header.Get("If-None-Match") == tag {
				c.W.WriteHeader(http.StatusNotModified)
				return nil
			}
			h.Set("Content-Length", strconv.Itoa(len(html)))
			c.W.WriteHeader(http.StatusOK)
			_, err := c.W.Write(html)
			return err
		}},
		{Method: http.MethodGet, Path: "/v1/status", Handle: func(c *wire.Call) error {
			return c.JSON(status(o, c.Service))
		}},
	}}, nil
}

// browser reports whether somebody wants to see a page. Programs that ask whether there is a server do not say text/html.
func browser(c *wire.Call) bool {
	for _, part := range strings.Split(strings.Join(c.R.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/html" {
			return true
		}
	}
	return false
}

// build puts the page together and returns it with its content security policy.
func build() (html []byte, policy string, err error) {
	read := func(name string) string {
		b, e := assets.ReadFile("assets/" + name)
		if e != nil && err == nil {
			err = e
		}
		return string(b)
	}
	css := read("page.css")
	var js strings.Builder
	for _, name := range scripts {
		js.WriteString(read(name))
	}
	t, e := template.New("page").Parse(read("page.html"))
	if err == nil {
		err = e
	}
	if err != nil {
		return nil, "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, struct{ CSS, JS string }{css, js.String()}); err != nil {
		return nil, "", err
	}
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	policy = "default-src 'none'; script-src " + hash(js.String()) + "; style-src " + hash(css) + "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return b.Bytes(), policy, nil
}

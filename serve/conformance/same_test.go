package conformance

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"autodev/serve/servetest"
)

// TestSameText fires the same greedy fill-in through every protocol, whole and as a stream: the text is the engine's own.
func TestSameText(t *testing.T) {
	s := start(t, "random")
	for _, c := range s.Cases {
		if c.Suffix == "" {
			continue // protocols differ in what no suffix means
		}
		fill := servetest.Fill{Model: c.Model, Prefix: c.Prefix, Suffix: c.Suffix, Tokens: c.MaxTokens}
		for _, d := range servetest.Dialects() {
			for _, stream := range []bool{false, true} {
				if stream && d.Stream == nil {
					continue
				}
				path, contentType, body := d.Ask(fill, stream)
				resp, err := http.Post(s.URL+path, contentType, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				var text string
				answer, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				if stream {
					text, err = d.Stream(bytes.NewReader(answer))
				} else {
					text, err = d.Whole(answer)
				}
				if err != nil || resp.StatusCode != http.StatusOK || text != c.Fill.Text {
					t.Errorf("%s, %s, stream %v: %d %v %q in %.300s, expected %q", c.Model, d.Name, stream, resp.StatusCode, err, text, answer, c.Fill.Text)
				}
				if marked := resp.Header.Get("X-AutoDev-FIM") != ""; marked != d.Raw {
					t.Errorf("%s, stream %v: header X-AutoDev-FIM %q", d.Name, stream, resp.Header.Get("X-AutoDev-FIM"))
				}
			}
		}
	}
}

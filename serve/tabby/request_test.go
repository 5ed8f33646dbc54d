package tabby

import (
	"errors"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/wire"
)

// fills is an engine of which only what it can do is asked.
type fills struct{ wire.Engine }

func (fills) Info() infer.Info { return infer.Info{FIM: true} }

func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"language":"python","segments":{"prefix":"a","suffix":"b","filepath":"x.py","declarations":[{"filepath":"y","body":"z"}],"clipboard":"c"},"temperature":0.5,"seed":3,"mode":"standard"}`,
		`{"debug_options":{"raw_prompt":"a","return_prompt":true}}`, `{"segments":{"prefix":1}}`, `{"segments":{"declarations":[null]}}`, `{"mode":"next_edit_suggestion"}`,
		`{"type":"view","completion_id":"x","choice_index":0,"view_id":"v","elapsed":12}`, `[`, `{"type":1}`, "\xff", `{"segments":[]}`,
	} {
		f.Add([]byte(s))
	}
	m := wire.Model{Engine: fills{}}
	f.Fuzz(func(t *testing.T, body []byte) {
		check := func(err error) {
			var own *wire.Error
			if err != nil && (!errors.As(err, &own) || (own.Status != 400 && own.Status != 501) || own.Message == "" || strings.ContainsAny(own.Message, "\n\r")) {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
		}
		f, err := wire.ParseFields(body)
		check(err)
		if err != nil {
			return
		}
		r, err := parseCompletion(f)
		check(err)
		if err == nil {
			q, err := r.request(m, func(raw string) infer.Prompt { return infer.Prompt{Prefix: raw} })
			check(err)
			if err == nil && (q.MaxTokens < 0 || !r.isRaw && q.Prompt.Suffix == "") {
				t.Fatalf("accepted %+v", q)
			}
		}
		f, _ = wire.ParseFields(body)
		e, err := parseEvent(f)
		check(err)
		if err == nil && (kinds[e.Type] == "" || e.CompletionID == "" || e.Choice < 0) {
			t.Fatalf("accepted %+v", e)
		}
	})
}

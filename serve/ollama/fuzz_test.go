package ollama

import (
	"errors"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/wire"
)

// engine is as much of an engine as bodies need.
type engine struct{ wire.Engine }

func (engine) Info() infer.Info { return infer.Info{Context: 64, FIM: true} }

func (engine) Encode(text string, _ bool) []int32 { return make([]int32, len(text)) }

func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"model":"m","prompt":"a","suffix":"b","stream":false,"options":{"num_predict":-1,"temperature":0.5,"stop":["x"],"seed":3},"keep_alive":"5m"}`,
		`{"prompt":"a","raw":true,"context":[1,2],"template":"{{ .Prompt }}","keep_alive":0,"logprobs":true,"top_logprobs":3}`,
		`{"messages":[{"role":"user","content":"x","images":[]},{"role":"assistant","content":[{"type":"text","text":"y"}]}],"tools":[],"format":null,"think":"low"}`,
		`{"options":null}`, `{"options":{"num_predict":1e999}}`, `[`, `{"prompt":"\ud800"}`, "\xff", `{"context":[-2147483649]}`, `{"messages":[null]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		check := func(err error) bool {
			var own *wire.Error
			if err != nil && (!errors.As(err, &own) || own.Status != 400 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r")) {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
			return err == nil
		}
		fields := func() *wire.Fields {
			f, err := wire.ParseFields(body)
			if !check(err) {
				return nil
			}
			return f
		}
		if f := fields(); f != nil {
			if r, err := parseGenerate(f); check(err) {
				q, err := r.request(wire.Model{Engine: engine{}}, func(text string) infer.Prompt { return infer.Prompt{Prefix: text} })
				if check(err) && (q.MaxTokens < 0 || q.Prompt.IDs != nil && q.Prompt.Suffix != "") {
					t.Fatalf("accepted %+v", q)
				}
			}
		}
		if f := fields(); f != nil {
			_, err := parseChat(f)
			check(err)
		}
	})
}

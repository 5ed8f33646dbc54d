package llamacpp

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
		`{"input_prefix":"a","input_suffix":"b","input_extra":[{"text":"x","time":[1,2],"filename":"f"}],"prompt":"p","n_predict":0,"samplers":["top_k","infill"],"response_fields":["a/b",""]}`,
		`{"input_prefix":"a","input_suffix":"b","prompt":["a",1,[2]],"n_cmpl":3,"lora":[{"id":0,"scale":0.5}],"t_max_predict_ms":1e308}`,
		`{"prompt":[[1,"a"],"b"],"logit_bias":[[1,false],["a",2]],"seed":-1,"stop":["x",""]}`,
		`{"prompt":"a","logit_bias":{"1":1,"x":false},"samplers":"kpmt","n":1e9}`,
		`[{"id":0,"scale":1}]`, `[null]`, `[`, `{"prompt":"\ud800"}`, "\xff", `{"prompt":[-2147483649]}`, `{"prompt":[null],"grammar":"x"}`, "[{}]\n[",
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
		_, err := parseScales(body)
		check(err)
		fields := func() *wire.Fields {
			f, err := wire.ParseFields(body)
			if !check(err) {
				return nil
			}
			return f
		}
		m := wire.Model{Engine: engine{}}
		shape := func(infer.Prompt) infer.Shape { return infer.Shape{} }
		if f := fields(); f != nil {
			if r, err := parseInfill(f); check(err) {
				all, err := r.requests(m, []infer.Prompt{r.prompt}, shape)
				if check(err) && (len(all) != r.n || r.n < 1 || r.n > maxChoices || r.maxTokens < 0) {
					t.Fatalf("accepted %+v", r)
				}
			}
		}
		if f := fields(); f != nil {
			if r, err := parseCompletion(f); check(err) {
				var prompts []infer.Prompt
				for _, p := range r.prompts {
					prompts = append(prompts, r.prompt(m.Engine, p, func(text string) infer.Prompt { return infer.Prompt{Prefix: text} }))
				}
				all, err := r.requests(m, prompts, shape)
				if check(err) && (len(all) == 0 || len(all) > maxPrompts) {
					t.Fatalf("accepted %+v", r)
				}
			}
		}
	})
}

package llamacpp

import (
	"net/http"
	"sync/atomic"

	"autodev/infer"
	"autodev/serve/wire"
)

// totalSlots is how many slots clients are told of. They use slots to find their cache again; here any request finds the longest beginning that
// any other has left, and requests share the engine as they come.
const totalSlots = 1

// running counts the completions under way.
type running struct{ n atomic.Int64 }

// enter counts one until what it returns is called.
func (r *running) enter() func() {
	r.n.Add(1)
	return func() { r.n.Add(-1) }
}

// health answers GET /health.
func health(c *wire.Call) error {
	_, release, err := c.Service.Use("")
	if err != nil {
		e := *wire.AsError(err)
		e.Message = "Loading model"
		return &e
	}
	release()
	return c.JSON(map[string]string{"status": "ok"})
}

// defaults are the settings of a request that names none.
func defaults(m wire.Model) settings {
	f, _ := wire.ParseFields([]byte(`{"seed":4294967294}`))
	o := readOptions(f)
	s := o.settings(m, infer.Request{Sampling: o.sampling.choice(0), Shape: m.Shape})
	s.Seed = noSeed
	return s
}

// props answers GET /props[?model=].
func props(c *wire.Call) error {
	m, release, err := c.Use(c.R.URL.Query().Get("model"))
	if err != nil {
		return err
	}
	defer release()
	type generation struct {
		ID         int      `json:"id"`
		Processing bool     `json:"is_processing"`
		Context    int      `json:"n_ctx"`
		Params     settings `json:"params"`
	}
	template := ""
	if m.Chat != nil {
		template = m.Chat.Template()
	}
	return c.JSON(struct {
		Generation generation      `json:"default_generation_settings"`
		Slots      int             `json:"total_slots"`
		Alias      string          `json:"model_alias"`
		Path       string          `json:"model_path"`
		Modalities map[string]bool `json:"modalities"`
		HasSlots   bool            `json:"endpoint_slots"`
		HasProps   bool            `json:"endpoint_props"`
		HasMetrics bool            `json:"endpoint_metrics"`
		Template   string          `json:"chat_template"`
		Build      string          `json:"build_info"`
		Sleeping   bool            `json:"is_sleeping"`
	}{
		Generation: generation{Context: m.Engine.Info().Context, Params: defaults(m)},
		Slots:      totalSlots, Alias: m.ID, Path: m.Path, Modalities: map[string]bool{"vision": false, "audio": false},
		HasSlots: true, HasMetrics: true, Template: template, Build: "autodev",
	})
}

// slots answers GET /slots. There is always room for one more request, so fail_on_no_slot fails for none.
func (s *server) slots(c *wire.Call) error {
	m, release, err := c.Use(c.R.URL.Query().Get("model"))
	if err != nil {
		return err
	}
	defer release()
	type slot struct {
		ID         int      `json:"id"`
		Context    int      `json:"n_ctx"`
		Processing bool     `json:"is_processing"`
		Params     settings `json:"params"`
	}
	return c.JSON([]slot{{Context: m.Engine.Info().Context, Processing: s.running.n.Load() > 0, Params: defaults(m)}})
}

// slotAction answers POST /slots/{id}.
func slotAction(*wire.Call) error {
	return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "", "not_supported", "slots cannot be saved, restored or erased here: the cache is shared by all requests")
}

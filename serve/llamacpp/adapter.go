package llamacpp

import (
	"encoding/json"
	"net/http"
	"sync"

	"autodev/serve/wire"
)

// scaled is an adapter, by its number in GET /lora-adapters, and how much of it is wanted.
type scaled struct {
	id    int
	scale float64
}

// maxScaled bounds a list of scales.
const maxScaled = 1024

// readLoRA reads the field lora. nil is absence; an empty list is the model without adapters.
func readLoRA(f *wire.Fields) []scaled {
	if _, ok := f.Get("lora"); !ok {
		return nil
	}
	objects := f.Objects("lora")
	list := readScales(objects)
	for i, o := range objects {
		if o.Err() != nil {
			f.Fail(wire.BadField("lora", "%s: %s", at(i), o.Err()))
		}
	}
	if len(list) > maxScaled {
		f.Fail(wire.BadField("lora", "found %d adapters, expected at most %d", len(list), maxScaled))
	}
	return list
}

func readScales(objects []*wire.Fields) []scaled {
	list := make([]scaled, len(objects))
	for i, o := range objects {
		if _, ok := o.Get("id"); !ok {
			o.Fail(wire.BadField("id", "missing, expected the number of an adapter"))
		}
		list[i] = scaled{o.Whole("id", 0, 0, 1<<30), o.Number("scale", 0)}
	}
	return list
}

// adapters remember which model requests mean that name none.
type adapters struct {
	mu     sync.Mutex
	chosen string // its id; "": the service's own default
}

func (a *adapters) get() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.chosen
}

func (a *adapters) set(id string) {
	a.mu.Lock()
	a.chosen = id
	a.mu.Unlock()
}

// family returns the model that an engine is without adapters, and its adapters in the order of their numbers.
func family(s wire.Service, e wire.Engine) (plain *wire.Model, with []wire.Model) {
	for _, m := range s.Models() {
		switch {
		case m.Engine != e:
		case m.Adapter != "":
			with = append(with, m)
		case plain == nil:
			plain = &m
		}
	}
	return plain, with
}

// pick returns the model that a list of scales means.
func pick(s wire.Service, e wire.Engine, list []scaled) (wire.Model, error) {
	plain, with := family(s, e)
	var one *wire.Model
	for i, l := range list {
		switch {
		case l.id >= len(with):
			return wire.Model{}, wire.BadField("lora", "%s: id: found %d, expected one of the %d adapters that GET /lora-adapters lists", at(i), l.id, len(with))
		case l.scale == 0:
		case l.scale != 1:
			return wire.Model{}, wire.BadField("lora", "%s: scale: found %v, expected 0 or 1: adapters are applied as they were trained", at(i), l.scale)
		case one != nil && one.ID != with[l.id].ID:
			return wire.Model{}, wire.BadField("lora", "%s: found a second adapter with scale 1, expected one", at(i))
		default:
			one = &with[l.id]
		}
	}
	switch {
	case one != nil:
		return *one, nil
	case plain != nil:
		return *plain, nil
	}
	return wire.Model{}, wire.BadField("lora", "found no adapter with scale 1, expected one: the model is not served without")
}

// use returns the model that a request means: by its field lora, its name, or by what POST /lora-adapters has set.
func (s *server) use(c *wire.Call, o *options) (wire.Model, func(), error) {
	name := o.model
	if name == "" && o.lora == nil {
		name = s.standard(c.Service)
	}
	m, release, err := c.Use(name)
	if err != nil || o.lora == nil {
		return m, release, err
	}
	defer func() { release() }()
	want, err := pick(c.Service, m.Engine, o.lora)
	if err != nil {
		return m, nil, err
	}
	m, free, err := c.Use(want.ID)
	if err != nil {
		return m, nil, err
	}
	if m.ID != want.ID {
		free()
		return m, nil, wire.Errorf(http.StatusNotFound, wire.Invalid, "lora", "model_not_found", "lora: the adapter was removed")
	}
	return m, free, nil
}

// standard returns the name of the model for requests that name none.
func (s *server) standard(service wire.Service) string {
	chosen := s.adapters.get()
	for _, m := range service.Models() {
		if m.ID == chosen {
			return chosen
		}
	}
	return ""
}

// listAdapters answers GET /lora-adapters: those of the default model.
func (s *server) listAdapters(c *wire.Call) error {
	m, release, err := c.Use(s.standard(c.Service))
	if err != nil {
		return err
	}
	defer release()
	type adapter struct {
		ID    int     `json:"id"`
		Path  string  `json:"path"`
		Scale float64 `json:"scale"`
	}
	list := []adapter{}
	_, with := family(c.Service, m.Engine)
	for i, w := range with {
		a := adapter{ID: i, Path: w.Adapter}
		if w.ID == m.ID {
			a.Scale = 1
		}
		list = append(list, a)
	}
	return c.JSON(list)
}

// setAdapters answers POST /lora-adapters: which adapter requests get that name none, of this protocol.
func (s *server) setAdapters(c *wire.Call) error {
	body, err := c.Body()
	if err != nil {
		return err
	}
	list, err := parseScales(body)
	if err != nil {
		return err
	}
	m, release, err := c.Use(s.standard(c.Service))
	if err != nil {
		return err
	}
	defer release()
	want, err := pick(c.Service, m.Engine, list)
	if err != nil {
		return err
	}
	s.adapters.set(want.ID)
	return c.JSON(struct {
		Success bool `json:"success"`
	}{true})
}

// parseScales reads a body that is an array of adapters and scales.
func parseScales(body []byte) ([]scaled, error) {
	if !json.Valid(body) {
		_, err := wire.ParseFields(body)
		return nil, err
	}
	if wire.KindOf(body) != "an array" {
		return nil, wire.Errorf(http.StatusBadRequest, wire.Invalid, "", "invalid_json", "body: found %s, expected an array", wire.KindOf(body))
	}
	f, err := wire.ParseFields([]byte(`{"lora":` + string(body) + `}`))
	if err != nil {
		return nil, err
	}
	list := readLoRA(f)
	return list, f.Err()
}

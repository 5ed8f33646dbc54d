package configs

import (
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Assist says which assistance functions there are and what answers them.
type Assist struct {
	// Functions is a folder with functions of the user's own, seen from where the program runs; "" for none.
	Functions string `yaml:"functions"`
	// LocalOnly refuses backends elsewhere.
	LocalOnly bool `yaml:"local_only"`
	// Default is the backend of functions that name none: "local" or one of Backends.
	Default  string          `yaml:"default"`
	Backends []AssistBackend `yaml:"backends"`
	// Use overrides the backends of functions.
	Use []AssistUse `yaml:"use"`
}

// AssistUse gives a function a backend.
type AssistUse struct {
	Function string `yaml:"function"`
	Backend  string `yaml:"backend"`
}

// AssistBackend is a service that speaks OpenAI's protocol.
type AssistBackend struct {
	Name    string `yaml:"name"`
	BaseURL string `yaml:"base_url"` // with the version: https://api.example.com/v1
	Model   string `yaml:"model"`
	KeyEnv  string `yaml:"key_env"`  // the environment variable with the API key
	KeyFile string `yaml:"key_file"` // or the file, which nobody else may read; neither: no key is sent
	// TimeoutSeconds is how long an answer may take, retries included.
	TimeoutSeconds float64 `yaml:"timeout_seconds"`
	// Retries is how often a request that failed before its answer began is sent again; the service's Retry-After is honoured up to half a minute.
	Retries int `yaml:"retries"`
	// RequestsPerDay and TokensPerDay bound the use in a day (UTC); 0 is no bound.
	RequestsPerDay int `yaml:"requests_per_day"`
	TokensPerDay   int `yaml:"tokens_per_day"`
	// BudgetFile keeps count of that when the process has ended; "" counts for the process.
	BudgetFile string `yaml:"budget_file"`
	// NewMaxTokens sends max_completion_tokens in place of max_tokens, and no temperature, as OpenAI's reasoning models need it.
	NewMaxTokens bool `yaml:"new_max_tokens"`
}

func (b *AssistBackend) setDefaults() { *b = AssistBackend{TimeoutSeconds: 120, Retries: 2} }

// LoadAssist reads the YAML file at path. See ParseAssist.
func LoadAssist(path string) (Assist, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Assist{}, fmt.Errorf("read assistance: %w", err)
	}
	return ParseAssist(path, b)
}

// ParseAssist decodes the configuration of assistance functions from YAML, fills in defaults and checks every value. name stands for the data in
// messages. The error is a *Error unless the text is no YAML at all.
func ParseAssist(name string, data []byte) (Assist, error) {
	root, err := parse(name, data)
	if err != nil {
		return Assist{}, err
	}
	d := decoder{name: name, from: map[*yaml.Node]string{}, where: map[string]string{}}
	a := Assist{Default: "local"}
	if err := d.decode("", root, reflect.ValueOf(&a).Elem()); err != nil {
		return Assist{}, err
	}
	return a, (&validator{decoder: &d}).assist(&a)
}

func (v *validator) assist(a *Assist) error {
	known := []string{"local"}
	for i := range a.Backends {
		b, key := &a.Backends[i], fmt.Sprintf("backends.%d.", i)
		switch {
		case b.Name == "":
			v.fail(key+"name", "nothing", "a name")
		case slices.Contains(known, b.Name):
			v.fail(key+"name", b.Name, "a name that is not local and not another backend's")
		}
		known = append(known, b.Name)
		if u, err := url.Parse(b.BaseURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			v.fail(key+"base_url", fmt.Sprintf("%q", b.BaseURL), "an address such as https://api.example.com/v1, without a user and a query")
		}
		if b.Model == "" {
			v.fail(key+"model", "nothing", "the name of a model")
		}
		if b.KeyEnv != "" && b.KeyFile != "" {
			v.fail(key+"key_file", "a file beside key_env", "one of them")
		}
		v.positive(key+"timeout_seconds", b.TimeoutSeconds)
		v.atLeast(key+"retries", b.Retries, 0)
		v.between(key+"retries", float64(b.Retries), 0, 10)
		v.atLeast(key+"requests_per_day", b.RequestsPerDay, 0)
		v.atLeast(key+"tokens_per_day", b.TokensPerDay, 0)
		if b.BudgetFile != "" && b.RequestsPerDay == 0 && b.TokensPerDay == 0 {
			v.fail(key+"budget_file", "a file", "requests_per_day or tokens_per_day beside it")
		}
	}
	if a.LocalOnly && len(a.Backends) > 0 {
		v.fail("local_only", "true", "no backends beside it")
	}
	v.choice("default", a.Default, known...)
	for i, u := range a.Use {
		key := fmt.Sprintf("use.%d.", i)
		if u.Function == "" {
			v.fail(key+"function", "nothing", "the name of a function")
		}
		v.choice(key+"backend", u.Backend, known...)
	}
	return v.err
}

package tabby

import (
	"runtime"
	"runtime/debug"
	"strings"

	"autodev/serve/wire"
)

// spoken is the version of Tabby whose API this is: the agent compares it to find out what the server can do.
const spoken = "v0.32.0"

// state is what Tabby's and llama.cpp's clients read of the server's health.
type state struct {
	Status      string               `json:"status"` // llama.cpp's
	Model       string               `json:"model"`
	ChatModel   string               `json:"chat_model,omitempty"`
	ChatDevice  string               `json:"chat_device,omitempty"`
	Device      string               `json:"device"`
	CUDADevices []string             `json:"cuda_devices"`
	Models      map[string]modelKind `json:"models"`
	Arch        string               `json:"arch"`
	CPUInfo     string               `json:"cpu_info"`
	CPUCount    int                  `json:"cpu_count"`
	Version     version              `json:"version"`
}

type modelKind struct {
	Local localModel `json:"local"`
}

type localModel struct {
	ModelID string `json:"model_id"`
	Device  string `json:"device"`
}

type version struct {
	BuildDate      string `json:"build_date"`
	BuildTimestamp string `json:"build_timestamp"`
	SHA            string `json:"git_sha"`
	Describe       string `json:"git_describe"`
}

// health answers GET and POST /v1/health.
func health(c *wire.Call) error {
	m, release, err := c.Service.Use("")
	if err != nil {
		return err
	}
	defer release()
	kind, cards := "cpu", []string{}
	if name := m.Engine.Info().Device; name != "" && name != "cpu" {
		kind, cards = "cuda", []string{name}
	}
	s := state{
		Status: "ok", Model: m.ID, Device: kind, CUDADevices: cards,
		Models: map[string]modelKind{"completion": {localModel{m.ID, kind}}},
		Arch:   runtime.GOARCH, CPUInfo: runtime.GOARCH, CPUCount: runtime.NumCPU(), Version: built(),
	}
	if m.Chat != nil {
		s.ChatModel, s.ChatDevice = m.ID, kind
		s.Models["chat"] = modelKind{localModel{m.ID, kind}}
	}
	return c.JSON(s)
}

// built says what this program was built from, where the build knows.
func built() version {
	v := version{Describe: spoken}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.SHA = s.Value
		case "vcs.time":
			v.BuildTimestamp = s.Value
			v.BuildDate, _, _ = strings.Cut(s.Value, "T")
		}
	}
	return v
}

// setting answers GET /v1beta/server_setting: the agent is to tell its makers nothing.
func setting(c *wire.Call) error {
	return c.JSON(struct {
		DisableClientSideTelemetry bool `json:"disable_client_side_telemetry"`
	}{true})
}

// models answers GET /v1beta/models.
func models(c *wire.Call) error {
	list := struct {
		Completion []string `json:"completion"`
		Chat       []string `json:"chat"`
	}{[]string{}, []string{}}
	for _, m := range c.Service.Models() {
		list.Completion = append(list.Completion, m.ID)
		if m.Chat != nil {
			list.Chat = append(list.Chat, m.ID)
		}
	}
	return c.JSON(list)
}

package assist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"autodev/configs"
)

// External answers with a service that speaks OpenAI's protocol. It is safe for concurrent use.
type External struct {
	name    string
	config  configs.AssistBackend
	chat    openai.ChatCompletionService
	budget  *Budget
	timeout time.Duration
}

// maxRetryDelay bounds the wait that a service may ask for with Retry-After.
const maxRetryDelay = 30 * time.Second

// newExternal returns the backend of a configuration. It opens no connection.
func newExternal(name string, c configs.AssistBackend, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*External, error) {
	key, err := readKey(c)
	if err != nil {
		return nil, fmt.Errorf("backends.%s: %w", name, err)
	}
	budget, err := NewBudget(c.RequestsPerDay, c.TokensPerDay, c.BudgetFile)
	if err != nil {
		return nil, fmt.Errorf("backends.%s: %w", name, err)
	}
	base := c.BaseURL
	if !strings.HasSuffix(base, "/") {
		base += "/"
	}
	client := newClient(dial)
	// The service is made without openai.NewClient, which would read keys and addresses from environment variables of its own choice.
	options := []option.RequestOption{
		option.WithBaseURL(base), option.WithHTTPClient(client), option.WithMaxRetries(c.Retries), option.WithMaxRetryDelay(maxRetryDelay),
	}
	if key != "" {
		options = append(options, option.WithAPIKey(key))
	}
	return &External{name: name, config: c, chat: openai.NewChatCompletionService(options...), budget: budget, timeout: time.Duration(c.TimeoutSeconds * float64(time.Second))}, nil
}

// newClient returns the client of one backend: the only place of the package that makes one.
func newClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 8, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	if dial != nil {
		t.DialContext, t.Proxy = dial, nil
	}
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		return fmt.Errorf("the service redirects to %s, expected an answer: set base_url to where it is", r.URL.Host)
	}}
}

// readKey returns the API key that a configuration names, "" where it names none.
func readKey(c configs.AssistBackend) (string, error) {
	switch {
	case c.KeyEnv != "":
		key := strings.TrimSpace(os.Getenv(c.KeyEnv))
		if key == "" {
			return "", fmt.Errorf("key_env: the environment variable %s is not set, expected an API key", c.KeyEnv)
		}
		return key, nil
	case c.KeyFile == "":
		return "", nil
	}
	info, err := os.Stat(c.KeyFile)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	// Windows has no such bits.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("key_file: %s: found permissions %#o, expected no rights for group and others (chmod 600)", c.KeyFile, info.Mode().Perm())
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return "", fmt.Errorf("key_file: %s: expected a file of at most 64 KiB", c.KeyFile)
	}
	b, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return "", fmt.Errorf("key_file: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" || strings.ContainsAny(key, "\r\n") {
		return "", fmt.Errorf("key_file: %s: expected one line with an API key", c.KeyFile)
	}
	return key, nil
}

func (e *External) Model() string { return e.config.Model }

func (e *External) Base() bool { return false }

// ServiceError is a failure of a service elsewhere.
type ServiceError struct {
	Backend    string
	Status     int // of HTTP; 0 where there was no answer
	RetryAfter time.Duration
	Err        error
}

func (e *ServiceError) Error() string { return fmt.Sprintf("backend %s: %s", e.Backend, e.Err) }
func (e *ServiceError) Unwrap() error { return e.Err }

var (
	errTimeout = errors.New("no complete answer in time")
	errBroken  = errors.New("the answer broke off")
)

func (e *External) Answer(ctx context.Context, q Query, emit func(string) error) (reply Reply, err error) {
	reply.Finish = FinishCancel
	done, err := e.budget.Begin()
	if err != nil {
		return reply, fmt.Errorf("backend %s: %w", e.name, err)
	}
	sent := 0
	for _, m := range q.Messages {
		sent += len(m.Content)
	}
	got := 0
	defer func() {
		if reply.Usage.TotalTokens == 0 && got > 0 {
			// Services that do not count are taken to have used a token for every four bytes.
			reply.Usage = Usage{(sent + 3) / 4, (got + 3) / 4, (sent+3)/4 + (got+3)/4}
		}
		if e := done(reply.Usage.TotalTokens); e != nil && err == nil {
			err = e
		}
	}()
	inner, cancel := context.WithTimeoutCause(ctx, e.timeout, errTimeout)
	defer cancel()
	stream := e.chat.NewStreaming(inner, e.params(q))
	defer func() { err = errors.Join(err, ignoreClosed(stream.Close())) }()
	for stream.Next() {
		chunk := stream.Current()
		if n := chunk.Usage; n.TotalTokens > 0 {
			reply.Usage = Usage{int(n.PromptTokens), int(n.CompletionTokens), int(n.TotalTokens)}
		}
		if len(chunk.Choices) == 0 {
			continue
		}
		c := chunk.Choices[0]
		switch {
		case c.FinishReason == "":
		case c.FinishReason == "length":
			reply.Finish = FinishLength
		default:
			reply.Finish = FinishStop
		}
		if c.Delta.Content == "" {
			continue
		}
		got += len(c.Delta.Content)
		if err := emit(c.Delta.Content); err != nil {
			reply.Finish = FinishCancel
			return reply, err
		}
	}
	switch err := stream.Err(); {
	case err != nil:
		reply.Finish = FinishCancel
		return reply, e.failure(ctx, inner, err)
	case reply.Finish == FinishCancel:
		return reply, &ServiceError{Backend: e.name, Err: errBroken}
	}
	return reply, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, fs.ErrClosed) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (e *External) params(q Query) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{
		Model:         e.config.Model,
		Temperature:   openai.Float(q.Temperature),
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	}
	if e.config.NewMaxTokens {
		p.MaxCompletionTokens = openai.Int(int64(q.MaxTokens))
		p.Temperature = openai.ChatCompletionNewParams{}.Temperature // models that want the new field refuse the old one beside it
	} else {
		p.MaxTokens = openai.Int(int64(q.MaxTokens))
	}
	for _, m := range q.Messages {
		switch m.Role {
		case "system":
			p.Messages = append(p.Messages, openai.SystemMessage(m.Content))
		case "assistant":
			p.Messages = append(p.Messages, openai.AssistantMessage(m.Content))
		default:
			p.Messages = append(p.Messages, openai.UserMessage(m.Content))
		}
	}
	if len(q.Stop) > 0 {
		p.Stop = openai.ChatCompletionNewParamsStopUnion{OfStringArray: q.Stop[:min(len(q.Stop), 4)]}
	}
	return p
}

// failure turns an error of the client into one that says what to do, without keys, addresses' queries or texts of the request.
func (e *External) failure(outer, inner context.Context, err error) error {
	if outer.Err() != nil {
		return context.Cause(outer)
	}
	if errors.Is(context.Cause(inner), errTimeout) {
		return &ServiceError{Backend: e.name, Err: fmt.Errorf("%w: waited %v", errTimeout, e.timeout)}
	}
	var api *openai.Error
	if errors.As(err, &api) {
		out := &ServiceError{Backend: e.name, Status: api.StatusCode}
		if api.Response != nil {
			out.RetryAfter = retryAfter(api.Response.Header)
		}
		said := strings.TrimSpace(api.Message)
		if said == "" {
			said = http.StatusText(api.StatusCode)
		}
		switch api.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			said = "the key was refused: " + said
		case http.StatusTooManyRequests:
			said = "too many requests: " + said
		case http.StatusNotFound:
			said = "not found; check base_url and model: " + said
		}
		out.Err = fmt.Errorf("%d: %.300s", api.StatusCode, said)
		if api.Code == "context_length_exceeded" || api.StatusCode == http.StatusRequestEntityTooLarge {
			return &TooLongError{out}
		}
		return out
	}
	var address *url.Error
	if errors.As(err, &address) {
		err = address.Err
	}
	return &ServiceError{Backend: e.name, Err: fmt.Errorf("%w: %w", errBroken, err)}
}

func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if d, err := time.ParseDuration(v + "s"); err == nil && d > 0 {
		return d
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// WarnPlain logs that keys and code go over the network unencrypted, where they do.
func (e *External) WarnPlain(log *slog.Logger) {
	u, err := url.Parse(e.config.BaseURL)
	if err != nil || u.Scheme != "http" {
		return
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		log.Warn("backend without encryption: keys and code can be read on the way", "backend", e.name, "host", host)
	}
}

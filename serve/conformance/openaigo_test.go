package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// TestOpenAIGo drives the server with OpenAI's Go client.
func TestOpenAIGo(t *testing.T) {
	s := start(t, "random")
	client := openai.NewClient(option.WithBaseURL(s.URL+"/v1/"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ctx := t.Context()
	usage := func(what string, got openai.CompletionUsage, want answer) {
		t.Helper()
		if int(got.PromptTokens) != want.PromptTokens || int(got.CompletionTokens) != want.CompletionTokens || got.TotalTokens != got.PromptTokens+got.CompletionTokens {
			t.Errorf("%s: usage %s, expected %+v", what, got.RawJSON(), want)
		}
	}
	withUsage := openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}

	list, err := client.Models.List(ctx)
	if err != nil || len(list.Data) < 2 || list.Data[0].ID != s.Cases[0].Model {
		t.Fatalf("models: %v, %v", list, err)
	}
	for _, c := range s.Cases {
		ask := openai.CompletionNewParams{
			Model: openai.CompletionNewParamsModel(c.Model), Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(c.Prefix)},
			Suffix: openai.String(c.Suffix), MaxTokens: openai.Int(int64(c.MaxTokens)),
		}
		whole, err := client.Completions.New(ctx, ask)
		if err != nil {
			t.Fatal(err)
		}
		if got := whole.Choices[0]; got.Text != c.Fill.Text || string(got.FinishReason) != c.Fill.Finish {
			t.Errorf("%s: %q, %s, expected %+v", c.Model, got.Text, got.FinishReason, c.Fill)
		}
		usage("completion", whole.Usage, c.Fill)
		ask.StreamOptions = withUsage
		stream := client.Completions.NewStreaming(ctx, ask)
		var text strings.Builder
		var last openai.Completion
		for stream.Next() {
			last = stream.Current()
			for _, choice := range last.Choices {
				text.WriteString(choice.Text)
			}
		}
		if err := stream.Err(); err != nil || text.String() != c.Fill.Text {
			t.Errorf("%s: streamed %q, %v, expected %q", c.Model, text.String(), err, c.Fill.Text)
		}
		usage("streamed completion", last.Usage, c.Fill)

		talk := openai.ChatCompletionNewParams{Model: c.Model, MaxCompletionTokens: openai.Int(int64(c.MaxTokens)), Messages: []openai.ChatCompletionMessageParamUnion{
			openai.SystemMessage(c.Messages[0].Content), openai.UserMessage(c.Messages[1].Content),
		}}
		said, err := client.Chat.Completions.New(ctx, talk)
		if err != nil {
			t.Fatal(err)
		}
		if got := said.Choices[0]; got.Message.Content != c.Talk.Text || got.FinishReason != c.Talk.Finish {
			t.Errorf("%s: said %q, %s, expected %+v", c.Model, got.Message.Content, got.FinishReason, c.Talk)
		}
		usage("chat", said.Usage, c.Talk)
		talk.StreamOptions = withUsage
		saying := client.Chat.Completions.NewStreaming(ctx, talk)
		var all openai.ChatCompletionAccumulator
		for saying.Next() {
			if !all.AddChunk(saying.Current()) {
				t.Errorf("%s: the client's accumulator refuses %s", c.Model, saying.Current().RawJSON())
			}
		}
		if err := saying.Err(); err != nil || len(all.Choices) != 1 || all.Choices[0].Message.Content != c.Talk.Text || all.Choices[0].FinishReason != c.Talk.Finish {
			t.Errorf("%s: streamed %+v, %v, expected %+v", c.Model, all.Choices, err, c.Talk)
		}
		usage("streamed chat", all.Usage, c.Talk)
	}

	// A client that leaves.
	c := s.Cases[0]
	leaving, leave := context.WithCancel(ctx)
	minutes := client.Completions.NewStreaming(leaving, openai.CompletionNewParams{
		Model: openai.CompletionNewParamsModel(s.Long), Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(c.Prefix)}, MaxTokens: openai.Int(90000),
	})
	for range 3 {
		if !minutes.Next() {
			t.Fatalf("the stream ended: %v", minutes.Err())
		}
	}
	leave()
	for minutes.Next() {
	}
	if !errors.Is(minutes.Err(), context.Canceled) {
		t.Errorf("a client that left: %v", minutes.Err())
	}
	s.idle(t)

	// Failures, with status, field and code.
	complete := func(model string, tokens int64, temperature float64, more ...option.RequestOption) error {
		_, err := client.Completions.New(ctx, openai.CompletionNewParams{
			Model: openai.CompletionNewParamsModel(model), Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokens: make([]int64, tokens)},
			Temperature: openai.Float(temperature),
		}, more...)
		return err
	}
	talk := func(model string) error {
		_, err := client.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("x")}})
		return err
	}
	broken := client.Completions.NewStreaming(ctx, openai.CompletionNewParams{
		Model: openai.CompletionNewParamsModel(s.Broken), Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("x")},
	})
	for broken.Next() {
	}
	for _, f := range []struct {
		err         error
		status      int
		param, code string
	}{
		{complete(c.Model, 1, -1), 400, "temperature", "invalid_value"},
		{complete(c.Model, 700, 0), 400, "prompt", "context_length_exceeded"},
		{complete(s.Busy, 1, 0), 429, "", "busy"},
		{complete(s.Broken, 1, 0), 500, "", "internal_error"},
		{complete(c.Model, 1, 0, option.WithBaseURL(s.Guarded+"/v1/")), 401, "", "invalid_api_key"},
		{talk(s.Mute), 501, "model", "no_chat"},
	} {
		var e *openai.Error
		if !errors.As(f.err, &e) || e.StatusCode != f.status || e.Param != f.param || e.Code != f.code {
			t.Errorf("%v, expected status %d, %q, %q", f.err, f.status, f.param, f.code)
		}
	}
	if err := complete(c.Model, 1, 0, option.WithBaseURL(s.Guarded+"/v1/"), option.WithAPIKey(s.Key)); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if err := broken.Err(); err == nil || !strings.Contains(err.Error(), "the model broke") {
		t.Errorf("a stream that broke off: %v", err)
	}
}

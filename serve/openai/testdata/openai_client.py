"""Checks a server of the tests with OpenAI's Python package; called by TestOpenAIClient with the base URL."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)

models = client.models.list().data
assert [m.id for m in models] == ["some/model"], models
assert client.models.retrieve("some/model").object == "model"

ask = dict(model="some/model", prompt="def add(a, b):\n", suffix="\n    return c\n", max_tokens=20, temperature=1, seed=5,
           logit_bias={"0": -100, "1": -100, "2": -100, "3": -100, "4": -100})
whole = client.completions.create(**ask)
assert whole.object == "text_completion" and whole.choices[0].text, whole
assert whole.choices[0].finish_reason == "length", whole
assert whole.usage.completion_tokens == 20 and whole.usage.total_tokens == 20 + whole.usage.prompt_tokens, whole.usage

parts = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
assert "".join(c.text for p in parts for c in p.choices) == whole.choices[0].text
assert len(parts) > 3 and {p.id for p in parts} == {parts[0].id}
# The second time the prompt comes from the cache, but for its last token.
again = parts[-1].usage
assert whole.usage.prompt_tokens_details.cached_tokens == 0, whole.usage
assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1, again
assert (again.prompt_tokens, again.completion_tokens, again.total_tokens) == (
    whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens), (whole.usage, again)
assert parts[-1].choices == [], parts[-1]
assert [c.finish_reason for p in parts for c in p.choices][-1] == "length"

two = client.completions.create(**{**ask, "n": 2, "prompt": ["a", "b"], "suffix": None})
assert [c.index for c in two.choices] == [0, 1, 2, 3], two

scored = client.completions.create(model="", prompt="for i in x:", max_tokens=3, logprobs=2, echo=True)
lp = scored.choices[0].logprobs
assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset), lp
assert lp.token_logprobs[0] is None and lp.token_logprobs[1] < 0, lp

char = whole.choices[0].text[3]
stopped = client.completions.create(**ask, stop=[char])
assert stopped.choices[0].finish_reason == "stop" and char not in stopped.choices[0].text, stopped
assert whole.choices[0].text.startswith(stopped.choices[0].text), (whole, stopped)

for arguments, expected in [
    (dict(prompt=[1] * 700), openai.BadRequestError),
    (dict(prompt="a", temperature=-1), openai.BadRequestError),
    (dict(prompt="a", extra_body={"stop": 5}), openai.BadRequestError),
]:
    try:
        client.completions.create(model="", **arguments)
    except expected as e:
        assert e.status_code == 400 and e.type == "invalid_request_error" and e.param, e
    else:
        raise AssertionError(f"{arguments}: no error")
try:
    client.models.retrieve("other")
except openai.NotFoundError as e:
    assert e.code == "model_not_found", e
else:
    raise AssertionError("unknown model: no error")

print("all checks passed")

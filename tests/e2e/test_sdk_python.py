"""The official Python SDK against the gateway, as its users use it."""

import asyncio
import json

import openai
import pytest

from harness.provider import count_tokens

TOOLS = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}]
QUESTION = [{"role": "user", "content": "What does the weather tool say?"}]


@pytest.fixture(scope="module")
def client(shared):
    return shared.client()


def hello(text="Hello big world"):
    return [{"role": "user", "content": text}]


def test_chat(client, shared):
    answer = client.chat.completions.create(model="box/echo", messages=hello())
    assert answer.choices[0].message.content == "Hello big world"
    assert answer.usage.completion_tokens == count_tokens("Hello big world") == 3
    assert shared.record(answer._request_id)["outcome"] == "answered"


def test_an_alias_goes_where_the_operator_said(client):
    assert client.chat.completions.create(model="acme-fast", messages=hello()).choices[0].message.content


def test_a_stream_without_include_usage_has_no_trace_of_usage(client):
    chunks = list(client.chat.completions.create(model="box/echo", messages=hello(), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello big world"
    assert all(chunk.choices for chunk in chunks)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_with_include_usage_ends_in_the_usage(client):
    chunks = list(client.chat.completions.create(
        model="box/echo", messages=hello(), stream=True, stream_options={"include_usage": True},
    ))
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 3)


def test_include_usage_false_is_as_if_nothing_had_been_asked(client):
    chunks = list(client.chat.completions.create(
        model="box/echo", messages=hello(), stream=True, stream_options={"include_usage": False},
    ))
    assert all(chunk.choices and "usage" not in chunk.model_fields_set for chunk in chunks)


def test_tools(client):
    answer = client.chat.completions.create(model="box/echo", messages=QUESTION, tools=TOOLS)
    call = answer.choices[0].message.tool_calls[0]
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert "city" in json.loads(call.function.arguments)
    messages = [
        *QUESTION, answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain in Bern"},
    ]
    second = client.chat.completions.create(model="box/echo", messages=messages, tools=TOOLS)
    assert second.choices[0].message.content == "rain in Bern"


def test_streamed_tools(client):
    with client.chat.completions.stream(model="box/echo", messages=QUESTION, tools=TOOLS) as stream:
        events = [event.type for event in stream]
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    assert "tool_calls.function.arguments.delta" in events


def test_json_mode(client):
    answer = client.chat.completions.create(
        model="box/echo", messages=hello("Answer in JSON"), response_format={"type": "json_object"},
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_several_choices(client):
    answer = client.chat.completions.create(model="box/echo", messages=hello(), n=3)
    assert len(answer.choices) == 3


def test_completions(client):
    answer = client.completions.create(model="box/echo", prompt="Hello big world")
    assert answer.choices[0].text == "Hello big world"
    parts = list(client.completions.create(model="box/echo", prompt="Hello big world", stream=True))
    assert "".join(part.choices[0].text for part in parts) == "Hello big world"


def test_embeddings(client, shared):
    # The SDK asks for base64 by itself; asking for floats takes the other way.
    packed = client.embeddings.create(model="box/echo", input=["one", "two words"])
    plain = client.embeddings.create(model="box/echo", input="one", encoding_format="float")
    assert [one.index for one in packed.data] == [0, 1]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    record = shared.record(plain._request_id)
    assert record["endpoint"] == "embeddings" and record["input"] == 1


def test_models(client):
    models = client.models.list().data
    names = [model.id for model in models]
    assert "box/echo" in names and "acme-fast" in names
    assert not any("*" in name for name in names)
    for model in models:
        if model.id in ("nobody", "stranger", "early"):
            continue
        assert client.chat.completions.create(model=model.id, messages=hello()).choices
    # The SDK percent-encodes the slash.
    one = client.models.retrieve("box/echo")
    assert (one.id, one.object, one.created) == ("box/echo", "model", 1_750_000_000)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nowhere/no-such")


def test_raw_responses_carry_the_request_id(client, shared):
    raw = client.chat.completions.with_raw_response.create(model="box/echo", messages=hello())
    assert shared.record(raw.headers["x-request-id"])["status"] == 200
    assert raw.headers["x-tokenroute-target"] == "box/echo"


ERRORS = [
    ("status-400-context", openai.BadRequestError, 400),
    ("status-404", openai.NotFoundError, 404),
    ("status-409", openai.ConflictError, 409),
    ("status-422", openai.UnprocessableEntityError, 422),
    ("status-429-retry-9", openai.RateLimitError, 429),
    ("status-429-quota", openai.RateLimitError, 429),
    ("status-500", openai.InternalServerError, 500),
    ("status-503", openai.InternalServerError, 503),
    ("status-500-html", openai.InternalServerError, 500),
    ("status-503-empty", openai.InternalServerError, 503),
    # The provider refuses us, not the caller.
    ("status-401", openai.InternalServerError, 502),
    ("status-402", openai.InternalServerError, 502),
    ("status-403", openai.InternalServerError, 502),
    # Redirects are never followed.
    ("status-302", openai.InternalServerError, 502),
    ("status-307", openai.InternalServerError, 502),
    ("fin-before-head", openai.InternalServerError, 502),
    ("reset-before-head", openai.InternalServerError, 502),
    ("half-head", openai.InternalServerError, 502),
    ("not-http", openai.InternalServerError, 502),
    ("no-such-script", openai.NotFoundError, 404),
]


@pytest.mark.parametrize(("script", "expected", "status"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_does_not_do(client, shared, script, expected, status, stream):
    with pytest.raises(expected) as caught:
        client.chat.completions.create(model=f"box/{script}+tag-{stream}", messages=hello(), stream=stream)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict) and caught.value.body["message"]
    record = shared.record(caught.value.request_id)
    assert (record["outcome"], record["status"]) == ("failed", status)


@pytest.mark.parametrize(("model", "expected", "reason"), [
    ("nobody", openai.InternalServerError, "upstream_unreachable"),
    ("stranger", openai.InternalServerError, "provider_auth"),
    ("early", openai.RateLimitError, None),
])
def test_providers_that_are_away_or_refuse(client, shared, model, expected, reason):
    with pytest.raises(expected) as caught:
        client.chat.completions.create(model=model, messages=hello())
    if reason:
        assert caught.value.body["metadata"]["reason"] == reason
    assert shared.record(caught.value.request_id)["outcome"] == "failed"


def test_a_retry_after_is_passed_on(client):
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="box/status-429-retry-9+tag-told", messages=hello())
    assert caught.value.response.headers["retry-after"] == "9"


def test_the_sdk_retries_what_passes(shared):
    client = shared.client(max_retries=2)
    # The gateway itself tries once more.
    answer = client.chat.completions.create(model="box/first-2-status-503+echo", messages=hello())
    assert answer.choices[0].message.content == "Hello big world"


@pytest.mark.parametrize(("key", "reason"), [
    ("sk-tr-" + "a" * 49, "key_unknown"),
    ("sk-proj-something-else", "key_unknown"),
])
def test_a_key_that_is_not_valid(shared, key, reason):
    with pytest.raises(openai.AuthenticationError) as caught:
        shared.client(key=key).chat.completions.create(model="box/echo", messages=hello())
    assert caught.value.body["metadata"]["reason"] == reason
    assert caught.value.type == "authentication_error" and caught.value.code == "401"
    assert caught.value.request_id


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="acme/none", messages=hello())
    assert (caught.value.param, caught.value.body["metadata"]["reason"]) == ("model", "model_not_found")
    assert "acme/none" not in caught.value.message


@pytest.mark.parametrize("more", [{"n": -1}, {"n": 1000}, {"max_tokens": "many"}, {"stream": "yes"}])
def test_values_that_cannot_be(client, more):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="box/echo", messages=hello(), extra_body=more)
    assert caught.value.body["metadata"]["reason"] == "invalid_value"


def test_a_body_that_is_too_long(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="box/echo", messages=hello("x" * (33 << 20)))
    assert caught.value.status_code == 413 and caught.value.request_id


def test_a_compressed_body(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="box/echo", messages=hello(), extra_headers={"content-encoding": "gzip"},
        )
    assert caught.value.status_code == 415 and caught.value.request_id


@pytest.mark.parametrize("fault", ["cut-after-3", "fin-after-3", "garbage-at-2+cut-after-4"])
def test_a_cut_stream_raises(client, shared, fault):
    stream = client.chat.completions.create(model=f"box/words-9+{fault}+tag-sdk", messages=hello(), stream=True)
    chunks = []
    with pytest.raises((openai.APIError, json.JSONDecodeError)):
        chunks.extend(chunk for chunk in stream)
    record = shared.record(stream.response.headers["x-request-id"])
    assert (record["outcome"], record["usage_source"]) == ("cut", "estimated")


async def ask_asynchronously(shared):
    async with openai.AsyncOpenAI(base_url=shared.base_url, api_key=shared.key) as client:
        stream = await client.chat.completions.create(model="box/echo", messages=hello(), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_the_asynchronous_client(shared):
    assert asyncio.run(ask_asynchronously(shared)) == "Hello big world"

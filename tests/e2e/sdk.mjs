// The official Node SDK against the gateway that $GATEWAY names, as "BASE_URL KEY". Run by test_sdk_node.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const [baseURL, apiKey] = process.env.GATEWAY.split(" ");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });
const messages = [{ role: "user", content: "Hello big world" }];
const model = "box/echo";
const tools = [{
  type: "function",
  function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
}];

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("chat", async () => {
  const { data, response, request_id } = await client.chat.completions.create({ model, messages }).withResponse();
  assert.equal(data.choices[0].message.content, "Hello big world");
  assert.equal(data.usage.completion_tokens, 3);
  assert.equal(request_id, response.headers.get("x-request-id"));
  assert.ok(request_id);
});

test("a stream without include_usage has no trace of usage", async () => {
  const chunks = await collect(await client.chat.completions.create({ model, messages, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "Hello big world");
  for (const chunk of chunks) {
    assert.ok(chunk.choices.length > 0);
    assert.ok(!("usage" in chunk));
  }
});

test("a stream with include_usage ends in the usage", async () => {
  const options = { model, messages, stream: true, stream_options: { include_usage: true } };
  const chunks = await collect(await client.chat.completions.create(options));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, 6);
  for (const chunk of chunks) assert.equal(chunk.usage, null);
});

test("tools, streamed and not", async () => {
  const question = [{ role: "user", content: "What does the weather tool say?" }];
  const whole = await client.chat.completions.create({ model, messages: question, tools });
  assert.equal(whole.choices[0].message.tool_calls[0].function.name, "get_weather");
  const runner = client.chat.completions.stream({ model, messages: question, tools });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, "tool_calls");
  assert.ok("city" in JSON.parse(final.choices[0].message.tool_calls[0].function.arguments));
});

test("JSON mode", async () => {
  const answer = await client.chat.completions.create({ model, messages, response_format: { type: "json_object" } });
  assert.equal(typeof JSON.parse(answer.choices[0].message.content), "object");
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: "Hello big world" });
  assert.equal(answer.choices[0].text, "Hello big world");
  const parts = await collect(await client.completions.create({ model, prompt: "Hello big world", stream: true }));
  assert.equal(parts.map((part) => part.choices[0].text).join(""), "Hello big world");
});

test("embeddings", async () => {
  const answer = await client.embeddings.create({ model, input: ["one", "two words"] });
  assert.deepEqual(answer.data.map((one) => one.index), [0, 1]);
  assert.equal(typeof answer.data[0].embedding[0], "number");
});

test("models", async () => {
  const names = (await collect(await client.models.list())).map((one) => one.id);
  assert.ok(names.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

async function fails(call, status, kind) {
  const error = await call().then(() => assert.fail("was answered"), (error) => error);
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
  assert.equal(error.status, status);
  return error;
}

const ask = (model, options) => () => client.chat.completions.create({ model, messages, ...options });

test("errors are of the SDK's classes", async () => {
  const cases = [
    ["box/status-400-context", 400, OpenAI.BadRequestError],
    ["box/status-404", 404, OpenAI.NotFoundError],
    ["box/status-422", 422, OpenAI.UnprocessableEntityError],
    ["box/status-429-retry-9", 429, OpenAI.RateLimitError],
    ["box/status-500", 500, OpenAI.InternalServerError],
    ["box/status-401", 502, OpenAI.InternalServerError],
    ["acme/none", 404, OpenAI.NotFoundError],
  ];
  for (const [name, status, kind] of cases) {
    for (const stream of [false, true]) {
      // No two calls share a target, so that none is off because of another's failures.
      const own = name.startsWith("box/") ? `${name}+tag-node-${stream}` : name;
      const error = await fails(ask(own, { stream }), status, kind);
      assert.ok(error.requestID, name);
      assert.ok(error.error.message, name);
    }
  }
  await fails(ask(model, { n: -1 }), 400, OpenAI.BadRequestError);
  const stranger = new OpenAI({ baseURL, apiKey: "sk-tr-" + "a".repeat(49), maxRetries: 0 });
  const error = await fails(() => stranger.models.list(), 401, OpenAI.AuthenticationError);
  assert.equal(error.type, "authentication_error");
});

test("a cut stream raises", async () => {
  for (const fault of ["cut-after-3", "fin-after-3"]) {
    const stream = await client.chat.completions.create({ model: `box/words-9+${fault}`, messages, stream: true });
    await assert.rejects(collect(stream), OpenAI.APIError, fault);
  }
});

test("leaving a stream", async () => {
  const stream = await client.chat.completions.create({ model: "box/sse-1000x20ms", messages, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices.length > 0);
    break;
  }
});

// What Anthropic's client for Node does against a gateway: node anthropic_node.mjs URL KEY
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [url, key] = process.argv.slice(2);
const model = "helexa/spark";
const messages = [{ role: "user", content: "Repeat: house garden" }];
const make = (apiKey, maxRetries = 0) => new Anthropic({ baseURL: url, apiKey, maxRetries });
const sdk = make(key);
const asked = (more) => ({ model, messages, max_tokens: 60, ...more });
const ask = (more, from = sdk) => from.messages.create(asked(more));
const input_schema = {
  type: "object",
  properties: { city: { type: "string", enum: ["paris"] } },
  required: ["city"],
};
const tools = [{ name: "get_weather", input_schema }];
const refused = (asking, kind) => assert.rejects(asking, (error) => error instanceof kind);

const steps = {
  async text() {
    assert.equal((await ask({ temperature: 0 })).content[0].type, "text");
  },
  async stream() {
    const final = await sdk.messages.stream(asked({ temperature: 0 })).finalMessage();
    assert.equal(final.content[0].text, (await ask({ temperature: 0 })).content[0].text);
    assert.ok(final.usage.output_tokens > 0);
  },
  async tools() {
    const question = { role: "user", content: "What is the weather in Paris?" };
    const first = await ask({ messages: [question], tools, tool_choice: { type: "any" } });
    const call = first.content.find((block) => block.type === "tool_use");
    assert.deepEqual(call.input, { city: "paris" });
    const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
    const turns = [question, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
    assert.ok((await ask({ messages: turns, tools })).content.length);
  },
  async thinking() {
    const message = await ask({ thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2000 });
    assert.equal(message.content[0].type, "thinking");
  },
  async counting() {
    const counted = await sdk.messages.countTokens({ model, messages });
    const { usage } = await ask();
    assert.equal(counted.input_tokens, usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
  },
  async images() {
    const source = { type: "base64", media_type: "image/png", data: "AA==" };
    const image = { role: "user", content: [{ type: "image", source }] };
    await refused(ask({ messages: [image] }), Anthropic.BadRequestError);
  },
  async errors() {
    await refused(ask({ model: "no/such" }), Anthropic.NotFoundError);
    await refused(ask({}, make("sk-spent", 2)), Anthropic.RateLimitError);
  },
};
for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log("ok", name);
}

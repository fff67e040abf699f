// What OpenAI's client for Node does against a gateway: node openai_node.mjs URL KEY
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const model = "helexa/spark";
const messages = [{ role: "user", content: "Repeat: house garden" }];
const make = (apiKey, maxRetries = 0) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries });
const sdk = make(key);
const chat = (more, from = sdk) =>
  from.chat.completions.create({ model, messages, temperature: 0, max_tokens: 60, ...more });
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["paris"] } },
  required: ["city"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const refused = (asking, kind, code) =>
  assert.rejects(asking, (error) => error instanceof kind && error.code === code);

const steps = {
  async text() {
    assert.match((await chat()).choices[0].message.content, /house/);
  },
  async stream() {
    let said = "";
    for await (const chunk of await chat({ stream: true })) said += chunk.choices[0]?.delta.content ?? "";
    assert.equal(said, (await chat()).choices[0].message.content);
  },
  async tools() {
    const question = { role: "user", content: "What is the weather in Paris?" };
    const first = await chat({ messages: [question], tools, tool_choice: "required" });
    const { message } = first.choices[0];
    assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "paris" });
    const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sunny" };
    assert.ok((await chat({ messages: [question, message, result], tools })).choices.length);
  },
  async structured() {
    const json_schema = { name: "place", strict: true, schema: parameters };
    const answer = await chat({ response_format: { type: "json_schema", json_schema }, temperature: 2 });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), { city: "paris" });
  },
  async reasoning() {
    assert.ok((await chat({ reasoning_effort: "low" })).choices[0].message.reasoning_content);
  },
  async images() {
    const image = { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } };
    const asking = chat({ messages: [{ role: "user", content: [image] }] });
    await refused(asking, OpenAI.BadRequestError, "vision_unsupported");
  },
  async errors() {
    await refused(chat({ model: "no/such" }), OpenAI.NotFoundError, "model_not_found");
    const long = [{ role: "user", content: "word ".repeat(30000) }];
    await refused(chat({ messages: long }), OpenAI.BadRequestError, "context_length_exceeded");
    await refused(chat({}, make("sk-spent", 2)), OpenAI.RateLimitError, "insufficient_quota");
  },
  async responses() {
    const asked = { model, input: "Repeat: house garden", temperature: 0, max_output_tokens: 60 };
    const plain = await sdk.responses.create(asked);
    assert.match(plain.output_text, /house/);
    const stream = sdk.responses.stream(asked);
    assert.equal((await stream.finalResponse()).output_text, plain.output_text);
  },
};
for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log("ok", name);
}

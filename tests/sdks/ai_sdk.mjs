// What the AI SDK does against a gateway, in all three dialects: node ai_sdk.mjs URL KEY
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const id = "helexa/spark";
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
const dialects = {
  chat: createOpenAICompatible({ name: "helexa", baseURL: `${url}/v1`, apiKey, includeUsage: true,
                                 supportsStructuredOutputs: true })(id),
  responses: openai.responses(id),
  messages: createAnthropic({ baseURL: `${url}/v1`, apiKey })(id),
};
const prompt = "Repeat: house garden";
const weather = ai.tool({
  description: "Weather of a city",
  inputSchema: z.object({ city: z.enum(["paris"]), days: z.number().int().optional() }),
  execute: async () => "sunny",
});

for (const [dialect, model] of Object.entries(dialects)) {
  const asked = { model, prompt, temperature: 0, maxOutputTokens: 120, maxRetries: 0 };
  const steps = {
    async text() {
      const { text, usage } = await ai.generateText(asked);
      assert.match(text, /house/);
      assert.ok(usage.outputTokens > 0);
    },
    async stream() {
      let said = "";
      for await (const piece of ai.streamText(asked).textStream) said += piece;
      assert.equal(said, (await ai.generateText(asked)).text);
    },
    async tools() {
      const tools = { get_weather: weather };
      const ask = { ...asked, prompt: "What is the weather in Paris?", tools };
      const forced = await ai.generateText({ ...ask, toolChoice: "required" });
      assert.equal(forced.toolCalls[0].toolName, "get_weather");
      assert.equal(forced.toolCalls[0].input.city, "paris");
      assert.equal(forced.toolResults[0].output, "sunny");
      const history = [{ role: "user", content: ask.prompt }, ...forced.response.messages];
      const { prompt: _, ...rest } = ask;
      assert.equal(typeof (await ai.generateText({ ...rest, messages: history })).text, "string");
    },
    async structured() {
      const schema = z.object({ kind: z.enum(["a", "b"]), count: z.number().int().min(0).max(9) });
      const found = await ai.generateText({ ...asked, temperature: 1, output: ai.Output.object({ schema }) });
      assert.ok(["a", "b"].includes(found.output.kind));
    },
    async refusals() {
      const image = { type: "image", image: "data:image/png;base64,iVBORw0KGgo=" };
      const messages = [{ role: "user", content: [image, { type: "text", text: "What is it?" }] }];
      const { prompt: _, ...rest } = asked;
      await assert.rejects(ai.generateText({ ...rest, messages }), (e) => e.statusCode === 400);
      const long = { ...asked, prompt: "word ".repeat(30000), maxRetries: 2 };
      await assert.rejects(ai.generateText(long), (e) => e.statusCode === 400 && e.isRetryable === false);
    },
  };
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
    } catch (error) {
      console.error("failed", dialect, name);
      throw error;
    }
    console.log("ok", dialect, name);
  }
}

// The official JavaScript client. Prints what it got for each check; argument: the server's URL.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const chat = client.chat.completions;
const question = { role: "user", content: "What is 40 + 2?" };
const ask = { model: "trivium", messages: [question] };
const properties = { a: { type: "integer" }, b: { type: "integer" } };
const parameters = { type: "object", properties };
const tools = [{ type: "function", function: { name: "add", parameters } }];
const schema = { type: "object", properties: { total: { type: "integer" } } };
const got = {};

const models = [];
for await (const model of await client.models.list()) models.push(model.id);
got.models = models;
got.chat = (await chat.create(ask)).choices[0].message.content;

const chunks = [];
const asked = { ...ask, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await chat.create(asked)) chunks.push(chunk);
got.stream = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
got.usage = chunks.at(-1).usage.completion_tokens;

const message = (await chat.create({ ...ask, tools })).choices[0].message;
const call = message.tool_calls[0];
got.tool = [call.function.name, JSON.parse(call.function.arguments)];
const result = { role: "tool", tool_call_id: call.id, content: "42" };
const last = await chat.create({ model: "trivium", messages: [question, message, result], tools });
got["tool result"] = last.choices[0].message.content;

const format = { type: "json_schema", json_schema: { name: "Sum", schema } };
got.structured = (await chat.parse({ ...ask, response_format: format })).choices[0].message.content;
got.structured = JSON.parse(got.structured).total;
got.n = (await chat.create({ ...ask, n: 2 })).choices.map((choice) => choice.message.content);
got.stop = (await chat.create({ ...ask, stop: ["sum"] })).choices[0].message.content;
const { logprobs } = (await chat.create({ ...ask, logprobs: true })).choices[0];
got.logprobs = logprobs.content.map((entry) => entry.token);

const missing = await chat.create({ ...ask, model: "nobody" }).catch((error) => error);
const invalid = await chat.create({ ...ask, temperature: -1 }).catch((error) => error);
got.errors = [missing.status, missing.code, invalid.status, invalid.param];

const input = { model: "trivium", input: question.content };
got.response = (await client.responses.create(input)).output_text;
let text = "";
for await (const event of await client.responses.create({ ...input, stream: true })) {
  if (event.type === "response.output_text.delta") text += event.delta;
}
got["response stream"] = text;
const functions = [{ type: "function", name: "add", parameters }];
const [item] = (await client.responses.create({ ...input, tools: functions })).output;
got["response tool"] = [item.name, JSON.parse(item.arguments)];
const parsed = await client.responses.parse({
  ...input,
  text: { format: { type: "json_schema", name: "Sum", schema } },
});
got["response structured"] = JSON.parse(parsed.output_text).total;
const completion = await client.completions.create({ model: "trivium", prompt: "It was" });
got.completion = completion.choices[0].text;

console.log(JSON.stringify(got));

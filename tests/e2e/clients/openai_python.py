"""The official Python client. Prints what it got for each check; argument: the server's URL."""

import json
import sys

from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel


class Sum(BaseModel):
    total: int


ASK = {"model": "trivium", "messages": [{"role": "user", "content": "What is 40 + 2?"}]}
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}


def main(url: str) -> dict[str, object]:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    chat = client.chat.completions
    got: dict[str, object] = {"models": [model.id for model in client.models.list()]}
    got["chat"] = chat.create(**ASK).choices[0].message.content
    chunks = list(chat.create(**ASK, stream=True, stream_options={"include_usage": True}))
    got["stream"] = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    got["usage"] = chunks[-1].usage.completion_tokens
    message = chat.create(**ASK, tools=[TOOL]).choices[0].message
    call = message.tool_calls[0]
    got["tool"] = [call.function.name, json.loads(call.function.arguments)]
    turns = [*ASK["messages"], message, {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    answer = chat.create(model="trivium", messages=turns, tools=[TOOL])
    got["tool result"] = answer.choices[0].message.content
    got["structured"] = chat.parse(**ASK, response_format=Sum).choices[0].message.parsed.total
    got["n"] = [choice.message.content for choice in chat.create(**ASK, n=2).choices]
    got["stop"] = chat.create(**ASK, stop=["sum"]).choices[0].message.content
    logprobs = chat.create(**ASK, logprobs=True).choices[0].logprobs
    got["logprobs"] = [token.token for token in logprobs.content]
    got["errors"] = [*failed(chat), *invalid(chat)]
    got |= responses(client)
    text = client.completions.create(model="trivium", prompt="It was")
    got["completion"] = text.choices[0].text
    return got


def failed(chat) -> list[object]:
    try:
        chat.create(**ASK | {"model": "nobody"})
    except NotFoundError as error:
        return [error.status_code, error.code]
    return []


def invalid(chat) -> list[object]:
    try:
        chat.create(**ASK, temperature=-1)
    except BadRequestError as error:
        return [error.status_code, error.param]
    return []


def responses(client: OpenAI) -> dict[str, object]:
    ask = {"model": "trivium", "input": "What is 40 + 2?"}
    got: dict[str, object] = {"response": client.responses.create(**ask).output_text}
    with client.responses.stream(**ask) as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
    got["response stream"] = "".join(deltas)
    tool = {"type": "function", "name": "add", "parameters": PARAMETERS}
    call = client.responses.create(**ask, tools=[tool]).output[0]
    got["response tool"] = [call.name, json.loads(call.arguments)]
    parsed = client.responses.parse(**ask, text_format=Sum)
    got["response structured"] = parsed.output_parsed.total
    return got


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

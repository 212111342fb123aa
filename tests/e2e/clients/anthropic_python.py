"""Anthropic's Python client. Prints what it got for each check; argument: the server's URL."""

import json
import sys

from anthropic import Anthropic, BadRequestError, NotFoundError

QUESTION = {"role": "user", "content": "What is 40 + 2?"}
ASK = {"model": "trivium", "max_tokens": 100, "messages": [QUESTION]}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
}
TOOL = {"name": "add", "input_schema": SCHEMA}


def main(url: str) -> dict[str, object]:
    create = (client := Anthropic(base_url=url, api_key="none", max_retries=0)).messages.create
    got: dict[str, object] = {"chat": create(**ASK).content[0].text}
    with client.messages.stream(**ASK) as stream:
        got["stream"] = "".join(stream.text_stream)
        got["usage"] = stream.get_final_message().usage.output_tokens
    answer = create(**ASK, tools=[TOOL])
    use = answer.content[0]
    got["tool"] = [use.name, use.input]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "42"}
    turns = [QUESTION, answer.to_param(), {"role": "user", "content": [result]}]
    got["tool result"] = create(**ASK | {"messages": turns}, tools=[TOOL]).content[0].text
    stopped = create(**ASK, stop_sequences=["sum"])
    got["stop"] = stopped.content[0].text
    got["errors"] = []
    try:
        create(**ASK | {"model": "nobody"})
    except NotFoundError as error:
        got["errors"] += [error.status_code, error.body["error"]["type"]]
    try:
        create(**ASK, extra_body={"temperature": -1})
    except BadRequestError as error:
        got["errors"] += [error.status_code, error.body["error"]["type"]]
    return got


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

"""LangChain. Prints what it got for each check; argument: the server's URL."""

import json
import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from openai import BadRequestError, NotFoundError
from pydantic import BaseModel

QUESTION = "What is 40 + 2?"


class Sum(BaseModel):
    """A sum."""

    total: int


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def main(url: str) -> dict[str, object]:
    where = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    chat = ChatOpenAI(model="trivium", **where)
    got: dict[str, object] = {"chat": chat.invoke(QUESTION).content}
    chunks = list(chat.stream(QUESTION, stream_usage=True))
    got["stream"] = "".join(chunk.content for chunk in chunks)
    counted = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    got["usage"] = counted[-1]["output_tokens"]
    with_tools = chat.bind_tools([add])
    message = with_tools.invoke(QUESTION)
    call = message.tool_calls[0]
    got["tool"] = [call["name"], call["args"]]
    result = ToolMessage("42", tool_call_id=call["id"])
    got["tool result"] = with_tools.invoke([HumanMessage(QUESTION), message, result]).content
    structured = chat.with_structured_output(Sum, method="json_schema")
    got["structured"] = structured.invoke(QUESTION).total
    several = ChatOpenAI(model="trivium", n=2, **where).generate([[HumanMessage(QUESTION)]])
    got["n"] = [generation.text for generation in several.generations[0]]
    got["stop"] = chat.invoke(QUESTION, stop=["sum"]).content
    logprobs = chat.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]
    got["logprobs"] = [entry["token"] for entry in logprobs["content"]]
    got["errors"] = errors(where)
    answers = ChatOpenAI(model="trivium", use_responses_api=True, **where)
    got["response"] = answers.invoke(QUESTION).text
    got["response stream"] = "".join(chunk.text for chunk in answers.stream(QUESTION))
    call = answers.bind_tools([add]).invoke(QUESTION).tool_calls[0]
    got["response tool"] = [call["name"], call["args"]]
    structured = answers.with_structured_output(Sum, method="json_schema")
    got["response structured"] = structured.invoke(QUESTION).total
    got["completion"] = OpenAI(model="trivium", **where).invoke("It was")
    return got


def errors(where: dict[str, object]) -> list[object]:
    got: list[object] = []
    try:
        ChatOpenAI(model="nobody", **where).invoke(QUESTION)
    except NotFoundError as error:
        got += [error.status_code, error.code]
    try:
        ChatOpenAI(model="trivium", temperature=-1, **where).invoke(QUESTION)
    except BadRequestError as error:
        got += [error.status_code, error.param]
    return got


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

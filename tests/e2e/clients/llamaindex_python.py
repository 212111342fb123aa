"""LlamaIndex. Prints what it got for each check; argument: the server's URL."""

import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError, NotFoundError
from pydantic import BaseModel

QUESTION = [ChatMessage(role="user", content="What is 40 + 2?")]


class Sum(BaseModel):
    """A sum."""

    total: int


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def main(url: str) -> dict[str, object]:
    def model(name: str = "trivium", **options: object) -> OpenAILike:
        return OpenAILike(
            model=name,
            api_base=f"{url}/v1",
            api_key="none",
            is_function_calling_model=True,
            max_retries=0,
            **{"is_chat_model": True} | options,
        )

    chat = model()
    got: dict[str, object] = {"chat": chat.chat(QUESTION).message.content}
    got["stream"] = "".join(piece.delta for piece in chat.stream_chat(QUESTION))
    tool = FunctionTool.from_defaults(add)
    answer = chat.chat_with_tools([tool], chat_history=QUESTION)
    (call,) = chat.get_tool_calls_from_response(answer)
    got["tool"] = [call.tool_name, call.tool_kwargs]
    result = ChatMessage(
        role="tool", content="42", additional_kwargs={"tool_call_id": call.tool_id}
    )
    turns = [*QUESTION, answer.message, result]
    got["tool result"] = chat.chat_with_tools([tool], chat_history=turns).message.content
    structured = model(should_use_structured_outputs=True).as_structured_llm(Sum)
    got["structured"] = structured.chat(QUESTION).raw.total
    got["stop"] = chat.chat(QUESTION, stop=["sum"]).message.content
    got["errors"] = []
    try:
        model("nobody").chat(QUESTION)
    except NotFoundError as error:
        got["errors"] += [error.status_code, error.code]
    try:
        chat.chat(QUESTION, temperature=-1)
    except BadRequestError as error:
        got["errors"] += [error.status_code, error.param]
    got["completion"] = model(is_chat_model=False).complete("It was").text
    return got


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

"""Routes of the OpenAI-compatible API, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from server.api.answering import respond
from server.api.chat.encode import Answer, ChunkEncoder, fold
from server.api.chat.schemas import ChatCompletion, ChatCompletionRequest, Model, ModelList
from server.api.completions.encode import CompletionAnswer, CompletionEncoder, fold_completion
from server.api.completions.schemas import Completion, CompletionRequest
from server.api.endpoint import BodyRoute
from server.api.messages import request as messages_request
from server.api.messages.encode import MessageEncoder, fold_message
from server.api.messages.objects import AnswerMessage, MessagesError, TokenCount
from server.api.messages.schemas import CountRequest, MessagesRequest
from server.api.openapi import ALWAYS, GENERATION, RETRY_AFTER, Responses, answers, failures
from server.api.responses import request as responses_request
from server.api.responses.encode import ResponseEncoder, fold_response
from server.api.responses.objects import ResponseObject
from server.api.responses.schemas import ResponsesRequest
from server.api.streaming import encoded
from server.edge.auth import is_stranger
from server.errors import UnknownModel
from server.relay.events import Batch
from server.relay.legs import AUTO, META
from server.services import Services, services_of
from server.wire import json_response, to_json


def api_router() -> APIRouter:
    """The routes. The app must put a `Services` into `app.state.services`."""
    router = APIRouter()
    for path, endpoint, responses_ in (
        ("/v1/chat/completions", chat_completions, CHAT_ANSWERS),
        ("/v1/completions", completions, COMPLETION_ANSWERS),
        ("/v1/responses", responses, RESPONSE_ANSWERS),
        ("/v1/messages", messages, MESSAGE_ANSWERS),
        ("/v1/messages/count_tokens", count_tokens, COUNT_ANSWERS),
    ):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=None,
            responses=responses_,
            route_class_override=BodyRoute,
        )
    router.add_api_route("/v1/models", list_models, methods=["GET"], responses=failures(*ALWAYS))
    router.add_api_route(
        "/v1/models/{model:path}",
        get_model,
        methods=["GET"],
        responses=failures(*ALWAYS, 404),
    )
    router.add_api_route(
        "/health", health, methods=["GET"], response_model=None, responses=HEALTH_ANSWERS
    )
    router.add_api_route("/livez", live, methods=["GET"])
    router.add_api_route("/version", version, methods=["GET"])
    return router


class HealthView(BaseModel):
    """How the server is. Who must show a key and does not is told the status alone."""

    status: Literal["ok", "starting", "draining"]
    meta: str | None = None
    experts: dict[str, str] | None = None


CHAT_ANSWERS = answers(ChatCompletion, "chunks, ended by `[DONE]`.")
COMPLETION_ANSWERS = answers(Completion, "completions with one choice each, ended by `[DONE]`.")
RESPONSE_ANSWERS = answers(ResponseObject, "OpenAI's semantic events, `response.created` first.")
MESSAGE_ANSWERS = answers(
    AnswerMessage, "Anthropic's events, `message_start` first.", MessagesError
)
COUNT_ANSWERS: Responses = {
    200: {"model": TokenCount, "description": "Tokens of the prompt."},
    **failures(*GENERATION, form=MessagesError),
}
HEALTH_ANSWERS: Responses = {
    200: {"model": HealthView, "description": "The meta LLM can answer."},
    503: {"model": HealthView, "description": "It cannot yet.", "headers": RETRY_AFTER},
}


# ---------------------------------------------------------------- answers


async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """An answer that one or several models write, streamed or in one piece."""
    answer = Answer.to(body)

    async def whole(batches: AsyncIterator[Batch]) -> bytes:
        return to_json((await fold(batches, answer)).model_dump(exclude_unset=True))

    encoder = ChunkEncoder(answer)
    return await respond(request, body, whole, lambda batches: encoded(batches, encoder))


async def completions(body: CompletionRequest, request: Request) -> Response:
    """Text that goes on from a raw prompt, streamed or in one piece."""
    answer = CompletionAnswer.to(body)

    async def whole(batches: AsyncIterator[Batch]) -> bytes:
        return to_json((await fold_completion(batches, answer)).model_dump(exclude_unset=True))

    encoder = CompletionEncoder(answer)
    return await respond(request, body, whole, lambda batches: encoded(batches, encoder))


async def responses(body: ResponsesRequest, request: Request) -> Response:
    """An answer in the form of OpenAI's Responses API, streamed or in one piece."""
    encoder = ResponseEncoder(body)
    return await respond(
        request,
        responses_request.to_chat(body),
        lambda batches: fold_response(batches, body),
        lambda batches: encoded(batches, encoder),
    )


async def messages(body: MessagesRequest, request: Request) -> Response:
    """An answer in the form of Anthropic's Messages API, streamed or in one piece."""
    encoder = MessageEncoder(body.model)
    return await respond(
        request,
        messages_request.to_chat(body),
        lambda batches: fold_message(batches, body.model),
        lambda batches: encoded(batches, encoder),
    )


async def count_tokens(body: CountRequest, request: Request) -> Response:
    """Tokens of a prompt, in the tokenizer of the model that begins its answer."""
    count = await services_of(request).counter.prompt(messages_request.to_count(body))
    return json_response(TokenCount(input_tokens=count).model_dump())


# ---------------------------------------------------------------- models, health, version


async def list_models(request: Request) -> ModelList:
    """The model that routes by itself, and those that a client may pin."""
    return ModelList(data=list(_models(services_of(request)).values()))


async def get_model(model: str, request: Request) -> Model:
    """One model. Its id may hold a slash."""
    found = _models(services_of(request)).get(model)
    if found is None:
        raise UnknownModel(f"the model {model!r} does not exist", param="model")
    return found


def _models(services: Services) -> dict[str, Model]:
    snapshot = services.snapshots.current
    served = {AUTO: snapshot.meta, f"{AUTO}/{META}": snapshot.meta}
    served |= {f"{AUTO}/{expert.name}": expert.endpoints for expert in snapshot.experts}
    return {
        name: Model(
            id=name,
            created=services.started,
            max_model_len=endpoints[0].max_model_len if endpoints else None,
        )
        for name, endpoints in served.items()
    }


async def health(request: Request) -> Response:
    """200 as soon as the meta LLM can answer, 503 before and while the server is being stopped;
    and the state of every model, which tells of paths and faults and so is not for strangers."""
    services = services_of(request)
    draining, states = services.drain.begun, services.status.health()
    up = bool(services.snapshots.current.meta) and not draining
    view = HealthView(status="draining" if draining else "ok" if up else "starting")
    if not is_stranger(request.scope):
        view.meta, view.experts = states.meta, dict(states.experts)
    body = view.model_dump(exclude_unset=True)
    return json_response(body) if up else json_response(body, 503, {"Retry-After": "5"})


async def live() -> dict[str, str]:
    """200 while this process answers at all, whatever its workers do: one that does not is to be
    started anew, which would help no worker. Whether it should be asked, `/health` says."""
    return {"status": "ok"}


async def version(request: Request) -> dict[str, str]:
    """Trivium's version."""
    return {"version": services_of(request).version}

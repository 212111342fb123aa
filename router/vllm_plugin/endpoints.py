"""HTTP routes of the meta worker, beside vLLM's own: the head, and captured hidden states."""

from __future__ import annotations

import base64
import binascii
from argparse import Namespace
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from router.features import Features

NAME = "trivium_endpoints"


class HeadState(BaseModel):
    """Which head the worker uses, and the layout a head must have."""

    version: str
    first_id: int
    slots: int
    hidden_size: int
    """Of the features that the head reads (`router/features.py`)."""
    fingerprint: str
    """Of the expanded checkpoint and the features; rows fitted for another do not fit."""


class NewHead(BaseModel):
    version: str
    safetensors: str
    """Base64 of the safetensors file of a `router.head.Head`."""


class TakeCaptures(BaseModel):
    keys: list[str]


class Capture(BaseModel):
    positions: list[int]
    """How many tokens had been written before each row."""
    data: str
    """Base64 of float32 rows, little-endian: `[positions, features]`, or, of a request that was to
    be explained, log-odds `[positions, slots]`."""


class TriviumEndpoints:
    """The `vllm.endpoint_plugins` entry point; load it by naming it in `VLLM_PLUGINS`."""

    name = NAME
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.add_api_route("/trivium/head", get_head, methods=["GET"])
        app.add_api_route("/trivium/head", put_head, methods=["PUT"])
        app.add_api_route("/trivium/captures", take_captures, methods=["POST"])

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        state.trivium_engine = engine_client


async def get_head(request: Request) -> HeadState:
    engine = request.app.state.trivium_engine
    config = engine.model_config.hf_config
    layout, features = config.expert_tokens, Features.of(config.to_dict())
    versions = await engine.collective_rpc("trivium_head_version")
    return HeadState(
        version=versions[0] if len(set(versions)) == 1 else "",
        first_id=layout["first_id"],
        slots=layout["slots"],
        hidden_size=features.size,
        fingerprint=features.fingerprint(layout["fingerprint"]),
    )


async def put_head(head: NewHead, request: Request) -> HeadState:
    try:
        payload = base64.b64decode(head.safetensors, validate=True)
    except binascii.Error as error:
        raise HTTPException(400, f"safetensors: not base64 ({error})") from None
    engine = request.app.state.trivium_engine
    await engine.collective_rpc("trivium_set_head", args=(payload, head.version))
    return await get_head(request)


async def take_captures(body: TakeCaptures, request: Request) -> list[Capture]:
    engine = request.app.state.trivium_engine
    ranks = await engine.collective_rpc("trivium_take_captures", args=(body.keys,))
    return [
        Capture(positions=positions, data=base64.b64encode(data).decode())
        for positions, data in ranks[0]
    ]

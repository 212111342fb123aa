"""What a manifest may name when it comes over HTTP: files and vLLM's arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.edge.addresses import PRIVATE_NETWORKS, Addresses
from server.edge.admission import Admission
from server.errors import BadRequest, Forbidden
from server.settings import Settings
from server.workers import vllm_command
from server.workers.vllm_command import Machine, bank_command, expert_command, meta_command
from tests.server.guarded import site_with
from tests.server.workers.test_registration import SUMS


def managed(checkpoint: Path | str, **worker: Any) -> dict[str, Any]:
    worker = {"checkpoint": str(checkpoint), **worker}
    return {"name": "sums", "description": "d", "worker": worker, "examples": SUMS}


def confined(*folders: Path) -> Admission:
    return Admission(folders, Addresses(PRIVATE_NETWORKS))


async def test_checkpoints_named_over_http_lie_in_the_model_folders(tmp_path: Path) -> None:
    models, outside = tmp_path / "models", tmp_path / "outside"
    for folder in (models / "good", outside):
        folder.mkdir(parents=True)
    (models / "link").symlink_to(outside)
    admission = confined(models)
    manifest = await admission.admit(managed(models / "good"))
    assert str(manifest.worker.checkpoint) == str(models / "good")  # type: ignore[union-attr]
    escapes = (outside, models / "link", models / ".." / "outside", f"{models}-more", "/etc", ".")
    for path in escapes:
        with pytest.raises(Forbidden, match="TRIVIUM_MODEL_DIRS") as refused:
            await admission.admit(managed(path))
        assert refused.value.param == "worker.checkpoint"
    with pytest.raises(Forbidden):
        await confined().admit(managed(models / "good"))


async def test_files_outside_are_not_even_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: [hunter2")
    models = tmp_path / "models"
    models.mkdir()
    (models / "link.yaml").symlink_to(secret)
    paths = (secret, models / "link.yaml", models / ".." / "secret.yaml")
    for raw in (
        *({"path": str(path)} for path in paths),
        *(managed(models) | {"examples": str(path)} for path in paths),
    ):
        with pytest.raises(Forbidden) as refused:
            await confined(models).admit(raw)
        assert "hunter2" not in str(refused.value)


async def test_files_that_a_manifest_inside_names_are_inside_too(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    line = json.dumps({"messages": [{"role": "user", "content": "x"}]}) + "\n"
    (tmp_path / "outside.jsonl").write_text(line * 5)
    manifest = managed(folder) | {"counter_examples": "../../outside.jsonl"}
    (folder / "expert.yaml").write_text(json.dumps(manifest))
    with pytest.raises(Forbidden, match="outside"):
        await confined(tmp_path / "models").admit({"path": str(folder)})
    (folder / "expert.yaml").unlink()
    (folder / "expert.yaml").symlink_to(tmp_path / "outside.jsonl")
    with pytest.raises(Forbidden, match="outside"):
        await confined(tmp_path / "models").admit({"path": str(folder)})


@pytest.mark.parametrize(
    "args",
    [
        ["--trust-remote-code"],
        ["--trust-remote-c"],
        ["--chat-template", "/etc/passwd"],
        ["--seed", "1", "/etc"],
        ["--seed=1", "/etc"],
        ["--seed", "1", "--config", "x"],
        ["/etc"],
        ["--middleware=os.system"],
        ["-h"],
        ["--"],
    ],
)
async def test_arguments_that_do_more_than_size_a_worker_are_refused(
    tmp_path: Path, args: list[str]
) -> None:
    with pytest.raises(Forbidden) as refused:
        await confined(tmp_path).admit(managed(tmp_path, args=args))
    assert refused.value.param == "worker.args"


async def test_harmless_arguments_pass(tmp_path: Path) -> None:
    args = ["--max-model-len", "2048", "--seed=1", "--enforce-eager", "--dtype", "float32"]
    manifest = await confined(tmp_path).admit(managed(tmp_path, args=args))
    assert list(manifest.worker.args) == args  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b"])
async def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    admission = Admission(None, Addresses(PRIVATE_NETWORKS))
    for raw in ({"path": path}, managed(path)):
        with pytest.raises(BadRequest):
            await admission.admit(raw)


async def test_on_this_machine_any_folder_and_argument_may_be_named(tmp_path: Path) -> None:
    admission = Admission(None, Addresses(PRIVATE_NETWORKS))
    await admission.admit(managed(tmp_path, args=["--chat-template", "x"]))


@pytest.mark.parametrize(
    ("settings", "folders"),
    [
        ({}, None),
        ({"model_dirs": ["/models"]}, (Path("/models"),)),
        ({"host": "0.0.0.0", "model_dirs": ["/models"]}, (Path("/models"),)),
        ({"host": "0.0.0.0"}, (Path("/cache/models"),)),
        ({"keys": "on"}, (Path("/cache/models"),)),
        ({"keys": "off"}, (Path("/cache/models"),)),
    ],
)
def test_callers_that_may_be_elsewhere_are_confined(settings: Any, folders: Any) -> None:
    assert Settings(cache_dir="/cache", **settings).model_folders == folders


async def test_a_registration_over_http_is_confined(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    async with site_with(tmp_path, keys="off") as site:
        response = await site.http.post("/v1/experts", json=managed(tmp_path / "model"))
        assert response.status_code == 403
        assert response.json()["error"]["param"] == "worker.checkpoint"


@pytest.mark.parametrize("gpu", [False, True])
def test_no_worker_runs_a_checkpoints_code_or_opens_a_pickle(
    tmp_path: Path, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM takes the last of two arguments that contradict each other."""
    monkeypatch.setenv("TRIVIUM_API_KEY", "sk-trivium-x")
    monkeypatch.setenv("TRIVIUM_KEY_POEMS", "sk-poems")
    machine = Machine(gpu=gpu, cores=2, bf16=True)
    hostile = ["--trust-remote-code", "--load-format", "pt"]
    commands = {
        "safetensors": [
            meta_command(tmp_path, 9, hostile, machine),
            expert_command("e", tmp_path, 9, hostile, machine),
        ],
        "dummy": [bank_command("bank:b", tmp_path, 9, 4, hostile, machine)],
    }
    for load_format, made in commands.items():
        for command in made:
            safe = ("--no-trust-remote-code", "--load-format", load_format)
            assert command.argv[-3:] == safe
            assert not vllm_command.SECRETS & command.env.keys()
            assert "TRIVIUM_KEY_POEMS" not in command.env

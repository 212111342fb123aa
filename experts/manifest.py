"""Expert manifests (`expert.yaml`): what an expert is, where it runs, when it is called."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "half a character, such as an emoji that was cut (a lone surrogate); mend the text"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
RESERVED_NAMES = frozenset({"meta", "auto", "trivium"})
KEY_VARIABLE = r"^TRIVIUM_KEY_[A-Z0-9_]{1,64}$"
MIN_EXAMPLES = 5
MAX_REPLICAS = 16


class ManifestError(ValueError):
    """A manifest that cannot be used; the message says where and why. `field` is the place, such
    as `worker.url`, if it has one."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Message(BaseModel):
    """One turn of an example query (OpenAI chat form, text only)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Text


class Example(BaseModel):
    """A query the expert should be called for: up to the turn where the answer begins.

    If the last turn is the assistant's, it is an unfinished answer, and the expert should be
    called to carry on from its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: tuple[Message, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_question(self) -> Example:
        if not any(m.role == "user" and m.content.strip() for m in self.messages):
            raise ValueError("an example needs at least one user turn with text")
        return self


class ManagedWorker(BaseModel):
    """A worker that Trivium starts: vLLM on a checkpoint folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["managed"] = "managed"
    checkpoint: Path
    args: tuple[str, ...] = ()
    """Further arguments for vLLM's server, e.g. `["--max-model-len", "2048"]`."""
    bank: Name | Literal[False] | None = None
    """The bank that serves it with other experts: one vLLM for all. None: if it is ternary, one
    that it fits is found or made. False: it has a process of its own."""
    replicas: int = Field(default=1, ge=1, le=MAX_REPLICAS)
    """Processes that serve it, each on its own; more than one: not in a bank. On a cluster that
    scales experts, the most."""
    min_replicas: int = Field(default=1, ge=0, le=MAX_REPLICAS)
    """The fewest on a cluster that scales experts. 0: none while nobody asks; who asks then waits
    until one has started."""

    @model_validator(mode="after")
    def _fewest_is_not_most(self) -> ManagedWorker:
        if self.min_replicas > self.replicas:
            raise ValueError(
                f"`min_replicas` is {self.min_replicas}, but `replicas` {self.replicas}"
            )
        return self

    @model_validator(mode="after")
    def _processes_are_its_own(self) -> ManagedWorker:
        if self.bank and self.replicas > 1:
            raise ValueError(
                "a bank is one process, so an expert in it has no `replicas`: leave out one of the"
                " two"
            )
        if self.bank and self.args:
            raise ValueError(
                "`args` are for a vLLM of its own, and in a bank it has none: leave out one of the"
                " two (the setting TRIVIUM_BANK_ARGS gives arguments to all banks)"
            )
        return self


class ExternalWorker(BaseModel):
    """A worker that runs elsewhere, such as `vllm serve`: an OpenAI-compatible server that knows
    vLLM's `continue_final_message`, by which it goes on with what others began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["external"] = "external"
    url: HttpUrl | None = None
    """Base URL up to and including `/v1`."""
    urls: tuple[HttpUrl, ...] = Field(default=(), max_length=MAX_REPLICAS)
    """Instead of `url`: those of several servers that serve the same model."""
    each_address: bool = False
    """Whether every address that the host of `url` has is a server of its own, as behind a headless
    Service of Kubernetes. They are looked up again and again."""
    model: str = Field(min_length=1)
    """The model's name at that server, or at all of them."""
    api_key_env: Annotated[str, Field(pattern=KEY_VARIABLE)] | None = None
    """Environment variable of the server in which their API key stands. Its name is marked as one,
    so that no manifest can ask for another secret to be sent to where it says."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> ExternalWorker:
        if (self.url is None) == (not self.urls):
            raise ValueError("give either `url`, or `urls` of one or more servers")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("`urls` names a server twice")
        if self.each_address and (self.url is None or self.url.scheme != "http"):
            raise ValueError(
                "`each_address` is for one `url` that begins with http://: a certificate is for a"
                " name, not for its addresses"
            )
        return self

    @property
    def bases(self) -> tuple[str, ...]:
        """Base URLs of all its servers, without a trailing slash."""
        urls = self.urls if self.url is None else (self.url,)
        return tuple(str(url).rstrip("/") for url in urls)


class Manifest(BaseModel):
    """One expert. Relative paths have been resolved against the manifest's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    description: Text = Field(min_length=1, max_length=2000)
    worker: Annotated[ManagedWorker | ExternalWorker, Field(discriminator="kind")]
    examples: tuple[Example, ...] = Field(min_length=MIN_EXAMPLES, max_length=10_000)
    counter_examples: tuple[Example, ...] = Field(default=(), max_length=10_000)
    """Queries like its own that it should not be called for."""
    license: str | None = None

    @model_validator(mode="after")
    def _name_is_free(self) -> Manifest:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"the name {self.name!r} is reserved; choose another")
        return self

    @model_validator(mode="after")
    def _examples_agree(self) -> Manifest:
        both = set(self.examples) & set(self.counter_examples)
        if both:
            query = next(m.content for e in both for m in e.messages if m.role == "user")
            raise ValueError(
                f"{query[:60]!r} is an example and a counter-example: leave it out of one of the"
                " two"
            )
        return self


def _any_file(path: Path, param: str) -> None:
    """No objection."""


MayRead = Callable[[Path, str], None]
"""Asked with each file that is read, and the field that names it; raises if it must not be."""


def load_manifest(path: Path, may_read: MayRead = _any_file) -> Manifest:
    """Read `path`: an `expert.yaml`, or a folder that holds one.

    `examples` and `counter_examples` may be lists (strings, or objects with `messages`) or paths
    of JSONL files of such objects, relative to the manifest. Raises ManifestError.
    """
    file = path / "expert.yaml" if path.is_dir() else path
    may_read(file, "path")
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"no expert manifest at {file}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ManifestError(f"{file} cannot be read as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ManifestError(f"{file}: a manifest is a mapping with name, description, worker, …")
    return parse_manifest(raw, base=file.parent.resolve(), source=str(file), may_read=may_read)


def parse_manifest(
    raw: dict[str, Any], *, base: Path, source: str = "manifest", may_read: MayRead = _any_file
) -> Manifest:
    """Validate a manifest given as plain data; `base` resolves its relative paths.

    Raises ManifestError with the first fault's place and reason.
    """
    data = dict(raw)
    try:
        _check_keys(data, Manifest.model_fields)
        data["worker"] = _worker(data.get("worker"), base)
        for key in ("examples", "counter_examples"):
            queries = data.get(key, () if key == "counter_examples" else None)
            data[key] = _examples(key, queries, base, may_read)
        return Manifest.model_validate(data)
    except ValidationError as error:
        fault = error.errors()[0]
        # Without the kind of worker, which nobody has to name.
        where = ".".join(str(p) for p in fault["loc"] if p not in ("managed", "external"))
        message = f"{source}: {where or 'manifest'}: {_reason(fault)}"
        raise ManifestError(message, where or None) from None
    except ManifestError as error:
        raise ManifestError(f"{source}: {error}", error.field) from None


def _reason(fault: ErrorDetails) -> str:
    """A fault in words that say what to do."""
    match fault["type"], fault["loc"]:
        case "missing", _:
            return "is missing"
        case "too_short", ("examples",):
            return f"give at least {MIN_EXAMPLES} queries, better 25"
        case "string_pattern_mismatch", (*_, "api_key_env"):
            return "such a variable is called TRIVIUM_KEY_ and a name in capitals"
        case "string_pattern_mismatch", _:
            return "a name is up to 63 of a-z, 0-9, _ and -, and begins with a letter or digit"
        case "extra_forbidden", _:
            return "there is no such key"
    return fault["msg"].removeprefix("Value error, ")


def _check_keys(found: dict[str, Any], known: Collection[str], inside: str = "") -> None:
    """Raise ManifestError for a key that is not `known`."""
    for key in map(str, found):
        if key not in known:
            like = get_close_matches(key, known, n=1)
            meant = f"did you mean {like[0]!r}? " if like else ""
            names = ", ".join(name for name in known if name != "kind")
            message = f"{inside}{key}: there is no such key; {meant}there are {names}"
            raise ManifestError(message, f"{inside}{key}")


def _worker(worker: Any, base: Path) -> Any:
    """Infer the worker's kind from its keys and make a checkpoint path absolute."""
    if not isinstance(worker, dict):
        raise ManifestError("worker: give `checkpoint: FOLDER`, or `url:` and `model:`", "worker")
    worker = dict(worker)
    if "kind" not in worker:
        worker["kind"] = "external" if {"url", "urls"} & worker.keys() else "managed"
        own = ExternalWorker if worker["kind"] == "external" else ManagedWorker
        _check_keys(worker, own.model_fields, "worker.")
    if isinstance(worker.get("checkpoint"), str):
        try:
            worker["checkpoint"] = str((base / Path(worker["checkpoint"]).expanduser()).resolve())
        except (OSError, RuntimeError, ValueError) as error:
            message = f"worker.checkpoint: {worker['checkpoint']!r} is no usable path: {error}"
            raise ManifestError(message, "worker.checkpoint") from None
    return worker


def _examples(key: str, examples: Any, base: Path, may_read: MayRead) -> list[Any]:
    """Examples as a list of `{"messages": …}`; reads a JSONL file if given a path."""
    if isinstance(examples, str):
        may_read(base / examples, key)
        examples = _read_jsonl(key, base / examples)
    if not isinstance(examples, list | tuple):
        raise ManifestError(f"{key}: give a list of queries or the path of a JSONL file", key)
    return [
        {"messages": [{"role": "user", "content": item}]} if isinstance(item, str) else item
        for item in examples
    ]


def _read_jsonl(key: str, path: Path) -> list[Any]:
    if path.exists() and not path.is_file():  # a device would not end
        raise ManifestError(f"{key}: {path} is no file", key)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may have other line ends
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path; no UTF-8
        raise ManifestError(f"{key}: cannot read {path}: {error}", key) from None
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(json.loads(line))
        except json.JSONDecodeError as error:
            message = f"{key}: {path} line {number}: not JSON ({error.msg})"
            raise ManifestError(message, key) from None
    return items

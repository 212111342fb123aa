"""The `trivium` command: options in, one module of `server.commands` each. No logic here.

Each command imports what it needs when it runs, so that the small ones start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experts.cli import app as ternary_app
from experts.errors import ExpertsError
from server.commands.client import CommandError
from server.commands.completion import complete_expert, complete_model
from server.commands.plan import app as plan_app

DEFAULT_URL = "http://127.0.0.1:8000"

app = typer.Typer(
    name="trivium",
    help="Many expert LLMs served as one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
experts_app = typer.Typer(help="Add, list, show, change and remove experts.", no_args_is_help=True)
keys_app = typer.Typer(
    help="API keys of the server on this machine: make, list, rotate, revoke.",
    no_args_is_help=True,
)
registry_app = typer.Typer(
    help="The registry and the API keys: back up, restore, move to another database.",
    no_args_is_help=True,
)
starter_app = typer.Typer(help="The experts that Trivium ships.", no_args_is_help=True)
bench_app = typer.Typer(
    help="Measure this machine. Needs the source and `make install`.", no_args_is_help=True
)
router_app = typer.Typer(
    help="Fit expert tokens on labelled queries, and measure them.", no_args_is_help=True
)
worker_app = typer.Typer(help="One worker in the foreground, for containers.", no_args_is_help=True)
app.add_typer(experts_app, name="experts")
app.add_typer(keys_app, name="keys")
app.add_typer(registry_app, name="registry")
app.add_typer(router_app, name="router")
app.add_typer(starter_app, name="starter")
app.add_typer(ternary_app, name="ternary")
app.add_typer(plan_app, name="plan")
app.add_typer(bench_app, name="bench")
app.add_typer(worker_app, name="worker")

Url = Annotated[
    str, typer.Option("--url", envvar="TRIVIUM_URL", help="Where the Trivium server answers.")
]
ExpertName = Annotated[
    str, typer.Argument(help="The expert's name.", autocompletion=complete_expert)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write the figures here, and their picture beside it, as PNG."),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    meta: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder of the meta LLM; default SmolLM2-135M-Instruct."),
    ] = None,
    meta_url: Annotated[
        str | None, typer.Option(help="A meta worker that runs elsewhere, without /v1.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer; each can use about one core.")
    ] = None,
    starter_experts: Annotated[
        bool | None, typer.Option(help="Register the experts that Trivium ships.")
    ] = None,
    keys: Annotated[
        bool | None,
        typer.Option(
            help="Ask for API keys; default where other machines can reach the server. --no-keys:"
            " a proxy in front sees to who may call."
        ),
    ] = None,
) -> None:
    """Start the workers and serve one model on http://127.0.0.1:8000."""
    from server.commands import serve as serve_command

    given = {
        "host": host,
        "port": port,
        "meta": meta,
        "meta_url": meta_url,
        "workers": workers,
        "starter_experts": starter_experts,
        "keys": {True: "on", False: "off", None: None}[keys],
    }
    serve_command.serve({key: value for key, value in given.items() if value is not None})


@app.command()
def chat(
    question: Annotated[
        str | None, typer.Argument(help="What to ask; - reads it from standard input.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="trivium, trivium/meta or trivium/EXPERT.", autocompletion=complete_model
        ),
    ] = "trivium",
    trace: Annotated[bool, typer.Option("--trace", help="Show which model wrote what.")] = False,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest answer.")] = 0.0,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Ask one question; or, without one, talk: /help there lists what it can."""
    import io
    import sys

    from server.commands import chat as chat_command

    options = chat_command.Options(model, system, temperature, max_tokens, trace)
    if question is not None or not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        text = sys.stdin.read() if question in (None, "-") else question
        ask = chat_command.chat_json if as_json else chat_command.chat
        ask(url, str(text).strip(), options)
        return
    if as_json:
        raise CommandError("--json needs a question: trivium chat --json 'What is 2 + 2?'")
    from server.commands.configuration import load_settings
    from server.commands.repl import converse

    converse(url, options, load_settings().state_dir / "chat_history")


@app.command()
def top(
    url: Url = DEFAULT_URL,
    as_json: Json = False,
    once: Annotated[bool, typer.Option("--once", help="Print the table and end.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds between two looks; with --json, a line for each."),
    ] = None,
) -> None:
    """Watch the models at work: streams, tokens/s, first tokens, routes. Ctrl-C ends it."""
    from server.commands import top as top_command

    top_command.top(url, as_json, once, interval)


@experts_app.command("add")
def experts_add(
    path: Annotated[Path, typer.Argument(help="expert.yaml, or a folder that holds one.")],
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Register an expert; it goes live without a restart of anything."""
    from server.commands import experts as experts_command

    experts_command.add(url, path, as_json)


@experts_app.command("list")
def experts_list(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """List the experts and how they are."""
    from server.commands import experts as experts_command

    experts_command.list_experts(url, as_json)


@experts_app.command("show")
def experts_show(name: ExpertName, url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show one expert."""
    from server.commands import experts as experts_command

    experts_command.show(url, name, as_json)


@experts_app.command("refit")
def experts_refit(url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Fit the tokens of all experts together, which tells them apart best."""
    from server.commands import experts as experts_command

    experts_command.refit(url, as_json)


@experts_app.command("set")
def experts_set(
    name: ExpertName,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it is called.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which it is called; 0 for the learned one.", max=1),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """Switch an expert off and on, or set how sure the meta LLM must be to call it."""
    from server.commands import experts as experts_command

    experts_command.change(url, name, enabled, threshold, as_json)


@experts_app.command("remove")
def experts_remove(name: ExpertName, url: Url = DEFAULT_URL) -> None:
    """Remove an expert; answers it is writing are finished first."""
    from server.commands import experts as experts_command

    experts_command.remove(url, name)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is, e.g. alice or chat-page.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="chat (the default), admin, metrics; may be repeated."),
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, e.g. 90d or 12h.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Chat requests a minute.")] = None,
    tpm: Annotated[
        int | None, typer.Option(min=1, help="Tokens a minute, of prompts and answers.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="Take the key in this file, made elsewhere; for deployments."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API key and show it, once."""
    from server.commands import keys as keys_command

    if secret_file is not None:
        keys_command.adopt(name, scope or ["chat"], expires, rpm, tpm, secret_file)
    else:
        keys_command.create(name, scope or ["chat"], expires, rpm, tpm, as_json)


@keys_app.command("list")
def keys_list(as_json: Json = False) -> None:
    """List the API keys; what they are is not kept, so it cannot be shown."""
    from server.commands import keys as keys_command

    keys_command.list_keys(as_json)


@keys_app.command("rotate")
def keys_rotate(
    name: str,
    grace: Annotated[str, typer.Option(help="How long the old one goes on counting.")] = "1h",
    as_json: Json = False,
) -> None:
    """Replace an API key by a new one of the same name."""
    from server.commands import keys as keys_command

    keys_command.rotate(name, grace, as_json)


@keys_app.command("revoke")
def keys_revoke(name: str) -> None:
    """Take an API key back; a running server notices within seconds."""
    from server.commands import keys as keys_command

    keys_command.revoke(name)


@registry_app.command("backup")
def registry_backup(
    file: Annotated[Path, typer.Argument(help="Write here; a file of that name is replaced.")],
) -> None:
    """Write the experts, their rows and the API keys to a file, also while servers run."""
    from server.commands import registry as registry_command

    registry_command.backup(file)


@registry_app.command("restore")
def registry_restore(
    file: Annotated[Path, typer.Argument(help="What `trivium registry backup` has written.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Lose what the database holds now.")
    ] = False,
) -> None:
    """Make the database hold what the file does, all or nothing; running servers follow."""
    from server.commands import registry as registry_command

    registry_command.restore(file, replace)


@starter_app.command("evaluate")
def starter_evaluate(
    url: Url = DEFAULT_URL,
    limit: Annotated[
        int | None, typer.Option(help="Only N problems of each, evenly spaced.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Ask another server too: NAME=URL or NAME=URL#MODEL."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Exact answers: the meta alone, the expert alone, the whole system; and wrong calls."""
    from server.commands import starter as starter_command

    starter_command.evaluate(url, limit, against or (), json_out)


@bench_app.command("kernel")
def bench_kernel(
    json_out: JsonFile = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default cuda where there is a GPU.")
    ] = None,
    ggml: Annotated[
        Path | None,
        typer.Option(
            envvar="TRIVIUM_GGML",
            help="Folder of llama.cpp's libggml-*.so; default those of llama-cpp-python.",
        ),
    ] = None,
) -> None:
    """The ternary product against bf16, int8, int4 and llama.cpp, on shapes of real models."""
    from server.commands import bench as bench_command

    options = {"json": json_out, "device": device, "ggml": ggml}
    raise typer.Exit(bench_command.bench("kernel", options))


@bench_app.command("ternary")
def bench_ternary(
    json_out: JsonFile = None,
    size: Annotated[str, typer.Option(help="1b, or small for a quick try.")] = "1b",
) -> None:
    """vLLM end to end on the CPU: the same model in full precision and ternary."""
    from server.commands import bench as bench_command

    raise typer.Exit(bench_command.bench("ternary", {"json": json_out, "size": size}))


@bench_app.command("bank")
def bench_bank(
    json_out: JsonFile = None,
    size: Annotated[str, typer.Option(help="135m, or small for a quick try.")] = "135m",
    only: Annotated[
        str | None, typer.Option(help="One part: compare, curve, swaps or adding.")
    ] = None,
    experts: Annotated[int | None, typer.Option(help="Experts, and processes to compare.")] = None,
    streams: Annotated[int | None, typer.Option(help="Answers at once.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Times that a speed is measured.")] = None,
) -> None:
    """Many experts in one vLLM engine, against one process for each."""
    from server.commands import bench as bench_command

    words = {"json": json_out, "size": size, "only": only}
    counts = {"experts": experts, "streams": streams, "rounds": rounds}
    raise typer.Exit(bench_command.bench("bank", {**words, **counts}))


@bench_app.command("relay")
def bench_relay(
    json_out: JsonFile = None,
    only: Annotated[str | None, typer.Option(help="One part: speed, first or crowd.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL", help="Another proxy in front of the stub worker (port 18100)."
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Times that each side is measured.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of the orchestrator, on as many cores.")
    ] = None,
) -> None:
    """What it costs that a stream goes through Trivium, on one core. Needs two cores."""
    from server.commands import bench as bench_command

    options = {"json": json_out, "only": only, "against": against, "rounds": rounds}
    options["workers"] = workers
    raise typer.Exit(bench_command.bench("relay", options))


MetaFolder = Annotated[
    str, typer.Option("--meta", help="The meta LLM: a checkpoint folder, or `default`.")
]
QueryFile = Annotated[
    Path, typer.Option("--data", help='JSON lines: {"messages": […], "expert": "name" or null}.')
]


@router_app.command("fit")
def router_fit(
    data: QueryFile,
    out: Annotated[Path, typer.Option(help="Write the head here, a safetensors file.")],
    meta: MetaFolder = "default",
    limit_per_expert: Annotated[
        int | None, typer.Option(min=2, help="Only N queries of each expert, drawn by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For --limit-per-expert.")] = 0,
    false_route_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of general queries that may be routed; by default 0.04 of your own, which"
            " are near misses, and 0.02 of those that are shipped.",
        ),
    ] = None,
) -> None:
    """Fit the expert tokens of all experts together."""
    from server.commands import router as router_command

    options: router_command.Options = {"meta": meta, "data": data, "out": out, "seed": seed}
    options |= {"limit-per-expert": limit_per_expert, "false-route-rate": false_route_rate}
    raise typer.Exit(router_command.run("fit", options))


@router_app.command("evaluate")
def router_evaluate(
    data: QueryFile,
    head: Annotated[Path, typer.Option(help="A head written by `trivium router fit`.")],
    meta: MetaFolder = "default",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Confusion matrix and reliability diagram, as PNG.")
    ] = None,
) -> None:
    """Accuracy, recall, false routes and calibration, beside other routers."""
    from server.commands import router as router_command

    options: router_command.Options = {"meta": meta, "data": data, "head": head}
    options |= {"json": json_out, "plot": plot}
    raise typer.Exit(router_command.run("evaluate", options))


VllmArguments = Annotated[
    list[str] | None, typer.Argument(help="Further arguments for vLLM, after --.")
]


@worker_app.command("meta")
def worker_meta(args: VllmArguments = None) -> None:
    """The meta worker; fetches and expands the meta LLM first."""
    from server.commands import worker as worker_command

    worker_command.meta(args or ())


@worker_app.command("expert")
def worker_expert(
    name: Annotated[str, typer.Argument(help="expert.yaml, its folder, or a starter expert.")],
    args: VllmArguments = None,
) -> None:
    """The worker of one expert, whose manifest names a checkpoint."""
    from server.commands import worker as worker_command

    worker_command.expert(name, args or ())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which accelerator is used, and what is missing."""
    from server.commands import doctor as doctor_command

    raise typer.Exit(doctor_command.doctor(as_json))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"trivium {installed('trivium')}")


def main() -> None:
    """Entry point. A failure is one sentence on standard error, never a stack trace."""
    try:
        app()
    except (CommandError, ExpertsError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None

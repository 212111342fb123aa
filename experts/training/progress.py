"""The terminal during training: a bar with the loss, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error


def quieten_transformers() -> None:
    """No warnings and bars of its own for every file that is read or written."""
    disable_progress_bar()
    set_verbosity_error()


class TrainingProgress(TrainerCallback):  # type: ignore[misc]
    """Replaces the Trainer's own bar; reads `loss`, `eval_loss`, `strength` of the log."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._figures: dict[str, str] = {}
        self._started = (0.0, 0)
        """Time and tokens seen when this process began."""

    def attach(self, trainer: Any) -> None:
        """Take the place of the Trainer's bar and printer."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = (time.monotonic(), state.num_input_tokens_seen)
        if state.is_world_process_zero and self._console.is_terminal:
            self._task = self._bar.add_task(
                "", total=state.max_steps, completed=state.global_step, figures=""
            )
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        if "loss" in logs:
            seconds = time.monotonic() - self._started[0]
            speed = (state.num_input_tokens_seen - self._started[1]) / seconds
            self._figures["loss"] = f"loss {logs['loss']:.4f}"
            self._figures["strength"] = f"λ {logs['strength']:.2f}"
            self._figures["speed"] = f"{speed:,.0f} tokens/s"
        if "eval_loss" in logs:
            self._figures["held-out"] = f"held-out {logs['eval_loss']:.4f}"
        figures = "  ".join(self._figures.values())
        if self._task is not None:
            self._bar.update(self._task, figures=figures)
        elif "loss" in logs:
            share = state.global_step / max(1, state.max_steps)
            line = f"step {state.global_step:>6} of {state.max_steps}  {share:4.0%}  {figures}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal in order, also after a failure."""
        if self._task is not None:
            self._bar.stop()

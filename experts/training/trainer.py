"""`TernaryTrainer`: transformers' Trainer with quantization warm-up and white-box distillation.

What FSDP, DeepSpeed, mixed precision, accumulation, resume and logging do is the Trainer's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import SchedulerType

from experts.bitlinear import set_strength
from experts.errors import ExpertsError
from experts.training.distillation import (
    Distillation,
    Projections,
    logit_divergence,
    matching_layers,
    relation_divergence,
    relation_heads,
    state_distance,
)
from experts.training.encoding import IGNORED

DECAY = 0.3
"""Share of the run, at its end, over which the learning rate falls (warmup-stable-decay)."""
COMPLETE = "complete"
"""A file in each `checkpoint-N` folder that was written to its end."""


class TrainingError(ExpertsError):
    """A run that cannot go on."""


def strength_at(step: int, warmup: int) -> float:
    """λ in the forward pass of step 0, 1, …: rises linearly from 0 and is 1 from `warmup` on."""
    return 1.0 if step >= warmup else step / warmup


class LearnedPositions:
    """Makes a model compute logits only where something is learned: `[learned, vocabulary]`.

    It works on the input of the language-model head, so that the model's own forward pass, and
    with it what FSDP or DDP wrap around it, stays in use.
    """

    def __init__(self, model: Any) -> None:
        self.mask: Tensor | None = None
        """Bool `[rows, length]`, set before each forward pass."""
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, module: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
        return None if self.mask is None else inputs[0][self.mask]


class Teacher:
    """A frozen model and the places where student and teacher are compared."""

    def __init__(self, model: Any, student: Any, weights: Distillation) -> None:
        self.model = model.eval().requires_grad_(False)
        self.weights = weights
        self.learned = LearnedPositions(model)
        self._heads = relation_heads(student.config, model.config)
        self._layers = matching_layers(
            student.config.num_hidden_layers, model.config.num_hidden_layers
        )
        self._projections = (Projections(student), Projections(model)) if weights.relations else ()

    def terms(self, student: Any, inputs: dict[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term, given the student's output for the same inputs. The
        logits' term is a sum over learned tokens, the others are means."""
        device = inputs["input_ids"].device
        if self.model.device != device:
            self.model.to(device)
        with torch.no_grad():
            teacher = self.model(
                input_ids=inputs["input_ids"],
                use_cache=False,
                output_hidden_states=bool(self.weights.hidden),
            )
        mask = inputs["attention_mask"]
        found = {}
        if self.weights.logits:
            value = logit_divergence(student.logits, teacher.logits, self.weights.temperature)
            found["logits"] = (self.weights.logits, value)
        if self._projections:
            ours, theirs = (projections.take() for projections in self._projections)
            value = relation_divergence(ours, theirs, self._heads, mask)
            found["relations"] = (self.weights.relations, value)
        if self.weights.hidden:
            states = [teacher.hidden_states[layer] for layer in self._layers]
            value = state_distance(list(student.hidden_states[1:]), states, mask)
            found["hidden"] = (self.weights.hidden, value)
        return found


class TernaryTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped to mypy
    """Trains a causal LM with `BitLinear` layers on batches of `collate`."""

    def __init__(
        self, *args: Any, warmup: float, teacher: Teacher | None = None, **kwargs: Any
    ) -> None:
        """`warmup` is the share of the run over which λ rises from 0 to 1."""
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise TrainingError(
                f"{self.args.n_gpu} GPUs are visible to one process; start one process for each"
                " with `torchrun --nproc-per-node N`, or set CUDA_VISIBLE_DEVICES=0"
            )
        self.teacher = teacher
        self.loss_is_scaled_for_ga = True
        self._warmup = warmup
        self._learned = LearnedPositions(self.model)
        self._terms: dict[str, Tensor] = {}
        self._count = 0
        self.add_callback(_Steps(self))

    @property
    def strength(self) -> float:
        """λ of the step that is next, or under way."""
        return strength_at(self.state.global_step, round(self._warmup * self.state.max_steps))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Cross-entropy (nats) of the learned tokens, and the teacher's terms while training.

        Terms that are sums over tokens are divided by the learned tokens of the whole step, so
        accumulated and distributed steps weigh every token the same.
        """
        targets = inputs["labels"][:, 1:]
        learned = targets != IGNORED
        teacher = self.teacher if model.training else None
        self._learned.mask = nn.functional.pad(learned, (0, 1))
        if teacher is not None:
            teacher.learned.mask = self._learned.mask
        outputs = model(
            input_ids=inputs["input_ids"],
            use_cache=False,
            output_hidden_states=teacher is not None and bool(teacher.weights.hidden),
        )
        tokens = learned.sum() if num_items_in_batch is None else num_items_in_batch
        terms = {"cross_entropy": (1.0, _cross_entropy(outputs.logits, targets[learned]))}
        if teacher is not None:
            terms |= teacher.terms(outputs, inputs)
        loss = self._weigh(terms, tokens)
        return (loss, {}) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As the Trainer does; warmup-stable-decay gets the length of its decay."""
        if self.args.lr_scheduler_type == SchedulerType.WARMUP_STABLE_DECAY:
            given = self.args.lr_scheduler_kwargs or {}
            plan = {"num_decay_steps": round(DECAY * num_training_steps), "decay_type": "1-sqrt"}
            self.args.lr_scheduler_kwargs = {**plan, **given}
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices only: neither norms and biases nor embeddings."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if "embed" not in name]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds λ and the parts of the loss to the lines of training."""
        if "loss" in logs:
            logs["strength"] = strength_at(
                self.state.global_step - 1, round(self._warmup * self.state.max_steps)
            )
            if self.teacher is not None:
                logs |= {name: (sum_ / self._count).item() for name, sum_ in self._terms.items()}
            self._terms.clear()
            self._count = 0
        super().log(logs, start_time)

    def load_weights(self, checkpoint: Path) -> None:
        """The model's weights and the log of a checkpoint, without training on."""
        self._load_from_checkpoint(str(checkpoint))
        self.state: Any = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def _weigh(self, terms: dict[str, tuple[float, Tensor]], tokens: Tensor) -> Tensor:
        """The loss of this batch, as a share of the step's."""
        shared = self.args.average_tokens_across_devices
        processes = self.accelerator.num_processes if shared else 1
        batches = self.current_gradient_accumulation_steps if self.model.training else 1
        loss = torch.zeros((), device=self.args.device)
        for name, (weight, value) in terms.items():
            if name in ("cross_entropy", "logits"):
                value = value * processes / tokens
            else:
                value = value / batches
            loss = loss + weight * value
            if self.model.training:
                self._terms[name] = self._terms.get(name, 0) + value.detach() * batches
        self._count += self.model.training
        return loss


class _Steps(TrainerCallback):  # type: ignore[misc]
    """λ before every step, a line of log before every save, a mark after it."""

    def __init__(self, trainer: TernaryTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        set_strength(self._trainer.model, self._trainer.strength)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log |= control.should_save

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        loss = logs.get("loss", 0.0)
        if loss != loss or abs(loss) == float("inf"):
            raise TrainingError(
                f"the loss is no longer a number at step {state.global_step}: lower the learning"
                " rate, or lengthen the warm-up, and start anew"
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.accelerator.wait_for_everyone()
        if args.should_save:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / COMPLETE).touch()


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

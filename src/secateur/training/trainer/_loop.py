"""The training loop: epochs of steps, events on the way, checkpoints between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.errors import StorageError
from secateur.training import Session
from secateur.training.trainer._checkpoint import write_checkpoint
from secateur.training.trainer._config import Config
from secateur.training.trainer._evaluate import Tally, evaluate
from secateur.training.trainer._event_log import EventLog
from secateur.training.trainer._interrupt import InterruptRequest
from secateur.training.trainer._learning_rate import learning_rate
from secateur.training.trainer._parts import Parts
from secateur.training.trainer._progress import OnProgress, Pacer, Phase, Progress
from secateur.training.trainer._random_state import load_generators_, save_generators

# A step is one forward and one backward pass, and a backward pass costs two forward passes.
FORWARDS_PER_STEP = 3
STEP_EVENTS = 100


class InterruptedRunError(KeyboardInterrupt):
    """The user asked to stop, and a checkpoint was written.

    Args:
        run: The folder of the run.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(f"The run in {run} was stopped and can be resumed.")
        self.run = run


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surroundings:
    """What a loop reports to and listens to.

    Attributes:
        run: The run folder.
        log: Takes the events.
        request: Whether the user asked to stop.
        on_progress: Called with the progress.
    """

    run: Path
    log: EventLog
    request: InterruptRequest
    on_progress: OnProgress


class Loop:
    """Trains a network, with structure discovery or without.

    Args:
        config: Settings of the run.
        parts: What it works with.
        macs: Multiply-accumulates of one image at the start.
        surroundings: What it reports to and listens to.

    Attributes:
        step: Optimizer steps taken.
        search: Structure discovery; None until it is attached and for runs without it.
        training_macs: Multiply-accumulates spent on training so far, those of what is measured on
            the side included.
        train_seconds: Seconds spent on training and validation so far, and on attaching the search.
    """

    def __init__(
        self, config: Config, parts: Parts, *, macs: float, surroundings: Surroundings
    ) -> None:
        self.step = 0
        self.search: Session | None = None
        self.training_macs = 0.0
        self.train_seconds = 0.0
        self._config = config
        self._parts = parts
        self._macs = macs
        self._surroundings = surroundings
        self._tally = Tally()
        self._epoch_seconds = 0.0
        self._validation_accuracy: float | None = None
        self._loss = torch.zeros(())
        self._price: float | None = None
        self._pacer = Pacer()
        # Lightning-fabric wraps them for the precision; the objects inside stay the same.
        self.network: nn.Module
        self.network, self._optimizer = parts.fabric.setup(parts.model, parts.optimizer)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._config.training.epochs * len(self._parts.train)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one image as the network is now."""
        return self._macs * self._macs_share

    @property
    def params(self) -> int:
        """Number of parameters as the network is now."""
        return sum(parameter.numel() for parameter in self._parts.model.parameters())

    def fit(self) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: The user asked to stop.
        """
        self._parts.model.train()
        while self._parts.train.epoch < self._config.training.epochs:
            self._run_epoch()

    def record(self, event: Mapping[str, object]) -> None:
        """Write an event of the search down, with what only the loop knows.

        Args:
            event: As `attach` hands it out.
        """
        known: dict[str, object] = {}
        if event["event"] == "step":
            known = {"loss": float(self._loss)}
            price = event.get("price")
            self._price = price if isinstance(price, float) else None
        self._surroundings.log.write({**event, **known})

    def report(self, phase: Phase) -> None:
        """Tell the caller where the run stands.

        Args:
            phase: What it does just now.
        """
        self._surroundings.on_progress(
            Progress(
                phase=phase,
                step=self.step,
                total_steps=self.total_steps,
                epoch=self._parts.train.epoch,
                epochs=self._config.training.epochs,
                loss=float(self._loss) if self.step else None,
                train_accuracy=self._tally.accuracy if self._tally.count else None,
                validation_accuracy=self._validation_accuracy,
                macs_share=self._macs_share,
                price=self._price,
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything from which the run can go on."""
        parts = self._parts
        if self.search is not None:
            parts.model.state_dict()  # opens all gates, so that no hidden structure is stored as 0
        return {
            "step": self.step,
            "training_macs": self.training_macs,
            "train_seconds": self.train_seconds,
            "epoch_seconds": self._epoch_seconds,
            "validation_accuracy": self._validation_accuracy,
            "tally": self._tally.state_dict(),
            "batches": parts.train.state_dict(),
            "model": {name: tensor.detach() for name, tensor in _tensors(parts.model).items()},
            "optimizer": parts.optimizer.state_dict(),
            "search": None if self.search is None else self.search.state_dict(),
            "precision": parts.fabric.strategy.precision.state_dict(),
            "generators": save_generators(parts.fabric.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: What `state_dict` returned in a run with the same config.

        Raises:
            StorageError: The state does not fit the network.
        """
        parts = self._parts
        if self.search is not None:
            self.search.load_state_dict(state["search"])
        _load_tensors_(parts.model, state["model"])
        parts.optimizer.load_state_dict(state["optimizer"])
        parts.fabric.strategy.precision.load_state_dict(state["precision"])
        parts.train.load_state_dict(state["batches"])
        load_generators_(parts.fabric.device, state["generators"])
        self._tally.load_state_dict(state["tally"])
        self.step = state["step"]
        self.training_macs = state["training_macs"]
        self.train_seconds = state["train_seconds"]
        self._epoch_seconds = state["epoch_seconds"]
        self._validation_accuracy = state["validation_accuracy"]

    @property
    def _macs_share(self) -> float:
        return 1.0 if self.search is None else self.search.macs_share

    @property
    def _side_work(self) -> tuple[int, float]:
        """Forward passes, and MACs beside them, that the search has spent on measuring."""
        return (
            (0, 0.0) if self.search is None else (self.search.side_samples, self.search.side_macs)
        )

    @property
    def _lr(self) -> float:
        settings = self._config.training
        return learning_rate(
            self.step,
            peak=settings.lr,
            warmup_steps=round(settings.warmup_epochs * len(self._parts.train)),
            total_steps=self.total_steps,
        )

    def _run_epoch(self) -> None:
        begun = time.perf_counter()
        for images, labels in self._parts.train:
            self._train_on(images, labels)
            if self._pacer.is_due():
                self.report("train")
            now = time.perf_counter()
            self._epoch_seconds += now - begun
            self.train_seconds += now - begun
            begun = now
            # After the last batch of an epoch comes its end; the next epoch looks again.
            if self._surroundings.request.is_made and self._parts.train.state_dict()["position"]:
                self._write_checkpoint()
                raise InterruptedRunError(self._surroundings.run)
        self._close_epoch()

    def _train_on(self, images: Tensor, labels: Tensor) -> None:
        for group in self._parts.optimizer.param_groups:
            group["lr"] = self._lr
        side_before = self._side_work
        logits = self.network(images)
        smoothing = self._config.training.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        self._loss = loss.detach()
        self._parts.fabric.backward(loss)
        samples, macs = self._side_work
        forwards = FORWARDS_PER_STEP * len(labels) + samples - side_before[0]
        self.training_macs += forwards * self.macs + macs - side_before[1]
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._tally.add(loss, logits, labels)
        self.step += 1
        if self.search is None or self.search.settled:
            self._record_step()

    def _record_step(self) -> None:
        if self.step % max(1, self.total_steps // STEP_EVENTS) == 0:
            self._surroundings.log.write(
                {
                    "event": "step",
                    "step": self.step,
                    "loss": float(self._loss),
                    "lr": self._parts.optimizer.param_groups[0]["lr"],
                    "macs_share": self._macs_share,
                }
            )

    def _close_epoch(self) -> None:
        begun = time.perf_counter()
        self.report("validate")
        validation = evaluate(self.network, self._parts.validation)
        self._validation_accuracy = validation.accuracy
        self.train_seconds += time.perf_counter() - begun
        self._surroundings.log.write(
            {
                "event": "epoch",
                "step": self.step,
                "epoch": self._parts.train.epoch,
                "train_loss": self._tally.loss,
                "train_accuracy": self._tally.accuracy,
                "validation_loss": validation.loss,
                "validation_accuracy": validation.accuracy,
                "macs": self.macs,
                "params": self.params,
                "epoch_seconds": self._epoch_seconds,
                "training_macs": self.training_macs,
            }
        )
        self.report("train")
        self._tally = Tally()
        self._epoch_seconds = 0.0
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        log = self._surroundings.log
        cursor = {"events_bytes": log.sync(), "seconds": log.seconds}
        write_checkpoint(self._surroundings.run, {"loop": self.state_dict(), **cursor})


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


@torch.no_grad()
def _load_tensors_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    tensors = _tensors(model)
    wrong = {name for name in tensors if name in state and tensors[name].shape != state[name].shape}
    wrong |= tensors.keys() ^ state.keys()
    if wrong:
        raise StorageError(
            f"The checkpoint does not fit the network: {', '.join(sorted(wrong)[:5])} differ. "
            "Resume with the config of the interrupted run, or start it again."
        )
    for name, tensor in tensors.items():
        # In place of copy_, which would keep the layout of the freshly built tensor.
        tensor.data = state[name].to(tensor.device, tensor.dtype)

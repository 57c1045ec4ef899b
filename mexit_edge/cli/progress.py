"""Live progress: one bar for the steps of a job, one for the epochs of a training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class JobProgress:
    """Tells which step is running, and how far the training is.

    On a terminal the lines are live; elsewhere each step and every epoch gives one line of its own.

    Args:
        screen: where to write.
    """

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and its duration when it is done."""
        started = time.perf_counter()
        if self.screen.is_terminal:
            with self.screen.status(f"{title} ..."):
                yield
        else:
            yield
        self.seconds[title] = round(time.perf_counter() - started, 2)
        self.screen.print(f"{title}: {self.seconds[title]:.1f} s")

    @contextmanager
    def training(self, epochs: int, title: str = "Training") -> Iterator[EpochLines]:
        """Show the epochs of a training; gives the object that takes each epoch's figures."""
        started = time.perf_counter()
        bar = Progress(
            TextColumn(title),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left, {task.fields[figures]}"),
            console=self.screen,
            disable=not self.screen.is_terminal,
        )
        with bar:
            yield EpochLines(bar, bar.add_task("training", total=epochs, figures=""), self.screen, epochs)
        self.seconds[title] = round(time.perf_counter() - started, 2)


class EpochLines:
    """Shows the training loss and the validation accuracy of each exit after every epoch."""

    def __init__(self, bar: Progress, task: Any, screen: Console, epochs: int) -> None:
        self.bar, self.task, self.screen, self.epochs = bar, task, screen, epochs
        self.started = time.perf_counter()
        self.skipped: int | None = None  # epochs that a resumed training had done before

    def epoch_done(self, epoch: int, logs: dict[str, float]) -> None:
        """Show the figures of epoch ``epoch``, from 1."""
        exits = sorted(key.removesuffix("_accuracy") for key in logs if _is_training_accuracy(key))
        kind = "val_" if any(name.startswith("val_") for name in logs) else ""
        # An exit that the phase does not run has no training figures.
        values = [logs[f"{kind}{name}_accuracy"] for name in exits]
        accuracies = " ".join("-" if isnan(value) else f"{value:.3f}" for value in values)
        # Short enough for a line of 80 columns with four exits.
        figures = f"loss {logs['loss']:.3f}, {'val' if kind else 'train'} {accuracies}"
        if self.skipped is None:
            self.skipped = epoch - 1
        self.bar.update(self.task, completed=epoch, figures=figures)
        if not self.screen.is_terminal:
            seconds_per_epoch = (time.perf_counter() - self.started) / (epoch - self.skipped)
            left = seconds_per_epoch * (self.epochs - epoch)
            self.screen.print(
                f"epoch {epoch}/{self.epochs}: {figures} (accuracy per exit), about {left:.0f} s left",
                soft_wrap=True,
            )


def _is_training_accuracy(key: str) -> bool:
    return key.startswith("exit_") and key.endswith("_accuracy")

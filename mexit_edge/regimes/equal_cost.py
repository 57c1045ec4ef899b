"""Epochs that cost as much as those of another regime: the fair comparison of regimes."""

from __future__ import annotations

from dataclasses import replace

from mexit_edge.errors import RunError
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.model import MultiExitModel
from mexit_edge.regimes.phases import epochs_per_phase
from mexit_edge.regimes.recipe import Recipe
from mexit_edge.regimes.sources import make_source, specs_of
from mexit_edge.signals import Windows

REFERENCE = "joint"


def epochs_of_equal_cost(recipe: Recipe, windows: Windows) -> int:
    """Return how many epochs of a recipe's regime cost what its epochs would cost under `joint`.

    Cost is forward and backward multiply-accumulates of the training steps, counted on TensorFlow's graph; of
    all numbers of epochs the one whose cost is nearest. Phases are at least one epoch long.

    Args:
        recipe: its ``epochs`` are those of `joint`.
        windows: training windows.

    Raises:
        InputError: there is no such backbone or regime.
        RunError: a graph cannot be counted.
    """
    reference = replace(recipe, regime=REFERENCE, options={})
    (whole,) = macs_per_window(reference.model(windows), windows, recipe.batch_size)
    wanted = recipe.epochs * whole
    model = recipe.model(windows)
    per_phase = macs_per_window(model, windows, recipe.batch_size)
    phases = model.phases

    def cost(epochs: int) -> float:
        return sum(
            length * macs for length, macs in zip(epochs_per_phase(phases, epochs), per_phase, strict=True)
        )

    # No regime costs less than its cheapest phase.
    most = int(wanted / min(per_phase)) + len(phases)
    return min(range(len(phases), most + 1), key=lambda epochs: (abs(cost(epochs) - wanted), epochs))


def macs_per_window(model: MultiExitModel, windows: Windows, batch_size: int) -> tuple[float, ...]:
    """Return forward and backward multiply-accumulates of a training window, phase by phase.

    Raises:
        RunError: a graph cannot be counted.
    """
    source = make_source(model, windows, None, batch_size, None, None, None)
    found = []
    before = model.active
    try:
        for phase in model.phases:
            model.active = ActivePhase(model.network, model.anatomy, phase)
            model.optimizer.build(model.trainable_variables)
            x, y, n = specs_of(source, model.network, twins=model.regime.perturbs)
            macs = model.regime.step_macs(model, x, y)
            if macs is None:
                raise RunError(
                    f"The cost of a step of {model.regime.name!r} must be countable for `equal_cost`. "
                    f"Received: a graph of unknown cost in phase {phase.name!r}. Say its epochs instead."
                )
            found.append((macs.forward + macs.backward) / n)
    finally:
        model.active = before
    return tuple(found)

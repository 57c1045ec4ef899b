"""Phases: what a regime trains when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mexit_edge.errors import InputError


@dataclass(frozen=True)
class Phase:
    """A part of the training with one optimizer, one schedule and one set of layers that learn.

    Args:
        name: for messages and results.
        exits: numbers of the exits that are run and whose losses count, from 1.
        frozen_blocks: the first so many blocks keep their weights and run in inference mode. Layers that no
            exit of the phase needs are not run at all.
        only_plain: whether of these blocks only the layers that the final exit needs are frozen. Others are
            heads whose logits other early heads read: no phase without early heads has trained them.
        share: of the epochs, relative to those of the other phases.
        weighted: whether the weights of exits apply; without, the phase's one exit counts as it is.
    """

    name: str
    exits: tuple[int, ...]
    frozen_blocks: int = 0
    only_plain: bool = False
    share: float = 1.0
    weighted: bool = True


def backbone_phase(n_exits: int, share: float = 1.0) -> Phase:
    """Phase 1 of arXiv 2407.14320: the plain network under the loss of its final exit, no early heads."""
    return Phase("backbone", (n_exits,), share=share, weighted=False)


def joint_phase(n_exits: int, share: float = 1.0) -> Phase:
    """Phase 2 of arXiv 2407.14320: backbone and heads under the losses of all exits."""
    return Phase("joint", tuple(range(1, n_exits + 1)), share=share)


def heads_phase(n_exits: int, share: float = 1.0) -> Phase:
    """Phase 3 of arXiv 2407.14320: the early heads, on a frozen backbone in inference mode.

    The frozen final exit has no gradient; neither it nor the last block is run. The weights of the early
    exits are those that they have among all exits: (1 / E) sum over e < E of CE_e by default.
    """
    return Phase("heads", tuple(range(1, n_exits)), frozen_blocks=n_exits - 1, only_plain=True, share=share)


def block_phase(number: int, share: float = 1.0) -> Phase:
    """One block and its head under its own loss, on frozen blocks before."""
    return Phase(f"block_{number:02d}", (number,), frozen_blocks=number - 1, share=share, weighted=False)


def epochs_per_phase(phases: Sequence[Phase], epochs: int, argument: str = "epochs") -> tuple[int, ...]:
    """Divide epochs among phases by their shares, each at least one.

    Args:
        phases: in order.
        epochs: in all.
        argument: that carried the epochs, for the message.

    Raises:
        InputError: there are fewer epochs than phases.
    """
    if epochs < len(phases):
        names = ", ".join(phase.name for phase in phases)
        raise InputError(
            f"`{argument}` must be at least the number of phases ({len(phases)}: {names}). "
            f"Received: {epochs}."
        )
    total = sum(phase.share for phase in phases)
    ends = [0]
    done = 0.0
    for number, phase in enumerate(phases, start=1):
        done += phase.share
        # Half an epoch goes to the earlier phase; every phase gets one and leaves one for each after it.
        end = int(epochs * done / total + 0.5)
        ends.append(min(max(end, ends[-1] + 1), epochs - (len(phases) - number)))
    return tuple(after - before for before, after in pairwise(ends))

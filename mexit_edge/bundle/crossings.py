"""Who makes each tensor that crosses between stages, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass

from mexit_edge.bundle.schema import Manifest, TensorSpec


@dataclass(frozen=True)
class Crossing:
    """A tensor that crosses between stages.

    Args:
        tensor: what the manifest says about it.
        made_by: number of the stage that makes it, from 1; 0 for the window.
        read_by: numbers of the stages that read it, in order; none for logits that no stage reads.
    """

    tensor: TensorSpec
    made_by: int
    read_by: tuple[int, ...]


def crossings(manifest: Manifest) -> tuple[Crossing, ...]:
    """Return the window and every output of a stage, in the order in which they are made."""
    made = {manifest.input_name: (manifest.stages[0].inputs[0], 0)}
    readers: dict[str, list[int]] = {}
    for number, stage in enumerate(manifest.stages, start=1):
        made |= {tensor.name: (tensor, number) for tensor in stage.outputs}
        for tensor in stage.inputs:
            readers.setdefault(tensor.name, []).append(number)
    return tuple(
        Crossing(tensor, number, tuple(readers.get(name, ()))) for name, (tensor, number) in made.items()
    )

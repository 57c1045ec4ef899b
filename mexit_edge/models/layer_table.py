"""A network layer by layer: what each computes, where exits could sit, what stands in the way of int8."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import keras

from mexit_edge.models.candidates import candidates_of
from mexit_edge.models.int8_support import Int8Support, int8_support
from mexit_edge.models.layer_calls import layer_calls
from mexit_edge.models.layer_macs import layer_macs


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer.

    Args:
        name: as `attach_exits` takes it.
        type: class of the layer.
        shape: of the output for one window; None where a dimension is not fixed.
        parameters: weights of the layer, at its first call; 0 at later ones, which share them.
        macs: multiply-accumulates of this call on one window; None where they are unknown.
        cumulative_macs: of everything this output needs, itself included; None where unknown.
        share: `cumulative_macs` as a share of the network's; None where unknown.
        live_tensors: see `ExitCandidate`.
        outputs: names of the network's outputs that this is; several where they share a tensor.
        no_exit: why no exit can sit behind it; None where one can.
        int8: whether it becomes int8 operators.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]
    parameters: int
    macs: int | None
    cumulative_macs: int | None
    share: float | None
    live_tensors: int
    outputs: tuple[str, ...]
    no_exit: str | None
    int8: Int8Support


def layer_table(network: keras.Model) -> tuple[LayerRow, ...]:
    """List the calls of a network's layers, nested models opened.

    Args:
        network: functional or Sequential, built; with exits or without, with one input or several.

    Returns:
        One row per call, in an order in which they can run; input layers are left out.

    Raises:
        InputError: it is no such network.
    """
    listed = layer_calls(network, "network")
    if isinstance(listed.outputs, dict):
        named = [(id(tensor), name) for name, tensor in sorted(listed.outputs.items())]
    else:
        named = [(id(tensor), "output") for tensor in keras.tree.flatten(listed.outputs)]
    counted: set[int] = set()
    rows = []
    for call, candidate in zip(listed.calls, candidates_of(listed), strict=True):
        weights = [one for one in getattr(call.layer, "weights", ()) if id(one) not in counted]
        counted.update(map(id, weights))
        made = id(call.outputs[0])
        rows.append(
            LayerRow(
                name=call.name,
                type=type(call.layer).__name__,
                shape=candidate.shape,
                parameters=sum(prod(one.shape) for one in weights),
                macs=layer_macs(call),
                cumulative_macs=candidate.cumulative_macs,
                share=candidate.share,
                live_tensors=candidate.live_tensors,
                outputs=tuple(name for tensor, name in named if tensor == made),
                no_exit=candidate.reason,
                int8=int8_support(call),
            )
        )
    return tuple(rows)

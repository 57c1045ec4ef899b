"""Where exits can sit in a network, and what it takes to get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import keras
from keras import layers

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.layer_calls import LayerCalls, layer_calls
from mexit_edge.models.layer_macs import layer_macs

# How much nearer an exit has to be, as a share of the network's MACs, to be worth one more live tensor.
SHARE_PER_LIVE_TENSOR = 0.25
# These compute no features: a share of the MACs never picks them, a name may.
_ONLY_PASS_ON = (
    layers.ActivityRegularization,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Dropout,
    layers.Flatten,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.Masking,
    layers.Normalization,
    layers.Permute,
    layers.RepeatVector,
    layers.Rescaling,
    layers.Reshape,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
)


@dataclass(frozen=True)
class ExitCandidate:
    """A place in a network, and whether an exit can sit there.

    Args:
        layer: name, as `attach_exits` takes it: ``"inner/conv_b"`` in a nested model, ``"shared#2"`` for the
            second call of a layer.
        shape: of the output for one window, without the batch; None where a dimension is not fixed.
        cumulative_macs: multiply-accumulates of everything this output needs, itself included; None where
            those of a layer are unknown.
        share: of the network's; None where they are unknown.
        live_tensors: tensors that have to be kept once this output and what it needs are computed, so that
            the final output can be: 1 where everything later depends on this output alone, 0 behind the end.
        reason: why no exit can sit there; None where one can.
    """

    layer: str
    shape: tuple[int | None, ...]
    cumulative_macs: int | None
    share: float | None
    live_tensors: int
    reason: str | None

    @property
    def possible(self) -> bool:
        """Whether an exit can sit there."""
        return self.reason is None


def exit_candidates(model: keras.Model) -> tuple[ExitCandidate, ...]:
    """Tell for every call of a layer whether an exit can sit behind it.

    Args:
        model: functional or Sequential, built; with one input or several.

    Returns:
        One row per call, in an order in which they can run, nested models opened.

    Raises:
        InputError: it is no such model.

    Example:
        ```python
        for row in exit_candidates(model):
            print(row.layer, row.share, row.reason or "possible")
        ```
    """
    return candidates_of(layer_calls(model))


def choose_exits(model: keras.Model, at: Sequence[str | float]) -> tuple[str, ...]:
    """Return the names of the layers that `attach_exits` gives exits for these names and shares.

    Among the layers that an exit can follow, a share picks the one whose cumulative MACs come nearest. Exits
    rather sit between residual blocks than inside them: every live tensor above one counts as 25 % of the
    network's MACs farther away. Of layers with the same MACs (a convolution, its normalisation, its
    activation) the last one is taken; layers that only pass on (dropout, padding, reshaping) never are.

    Args:
        model: as for `exit_candidates`.
        at: names, or shares of the network's MACs: numbers between 0 and 1, or texts such as ``"10 %"``.

    Raises:
        InputError: a name is unknown or no exit can sit there; a share is out of range, picks what another
            one picks, or cannot be told because the MACs of a layer are unknown.
    """
    return chosen_of(layer_calls(model), at)


def candidates_of(network: LayerCalls) -> tuple[ExitCandidate, ...]:
    """Tell where exits can sit in a network that is listed already."""
    needs, n_inputs = network.needs(), len(network.flat_inputs)
    macs = [layer_macs(call) for call in network.calls]
    total = _sum(macs, (1 << len(macs)) - 1)
    final = needs[id(network.final_output)] >> n_inputs
    rows = []
    for place, call in enumerate(network.calls):
        needed = needs[id(call.outputs[0])] >> n_inputs
        cumulative = _sum(macs, needed)
        rows.append(
            ExitCandidate(
                layer=call.name,
                shape=tuple(call.outputs[0].shape[1:]),
                cumulative_macs=cumulative,
                share=cumulative / total if total and cumulative is not None else None,
                live_tensors=_live_tensors(network, final & ~needed),
                reason=reason_against(call.outputs, network)
                or (None if final >> place & 1 else "it is part of the head of an earlier exit"),
            )
        )
    return tuple(rows)


def chosen_of(network: LayerCalls, at: Sequence[str | float]) -> tuple[str, ...]:
    """Resolve names and shares in a network that is listed already."""
    if isinstance(at, str) or not isinstance(at, Sequence) or not at:
        raise InputError(
            f"`at` needs layer names or shares of the MACs, at least one. Received: {at!r}. "
            'Use `at=["LAYER", ...]` or `at=["10 %", 0.3]`.'
        )
    rows: tuple[ExitCandidate, ...] = ()
    chosen: list[str] = []
    for one in at:
        share = _as_share(one, network)
        if share is None:
            chosen.append(_known_name(str(one), network))
            continue
        rows = rows or candidates_of(network)
        chosen.append(_nearest(share, rows, network).layer)
    if len(set(chosen)) != len(chosen):
        picked = ", ".join(f"{one!r} is {name!r}" for one, name in zip(at, chosen, strict=True))
        raise InputError(
            f"`at` needs distinct layer names or shares that pick distinct layers. Received: {list(at)}, of "
            f"which {picked}. `exit_candidates` lists the layers with their shares."
        )
    return tuple(chosen)


def _as_share(one: str | float, network: LayerCalls) -> float | None:
    """Return the share of the MACs that an entry of `at` means, or None for a name."""
    if isinstance(one, str):
        text = one.strip()
        if not text.endswith("%") or one in network.names:
            return None
        try:
            share = float(text[:-1]) / 100
        except ValueError:
            return None
    elif isinstance(one, bool) or not isinstance(one, Real):
        raise InputError(
            f"`at` must hold layer names, numbers between 0 and 1, or texts like '10 %'. Received: {one!r}."
        )
    else:
        share = float(one)
    if not 0 < share < 1:
        raise InputError(
            "`at` must hold shares of the MACs between 0 and 1 (or 0 % and 100 %), both excluded. "
            f"Received: {one!r}."
        )
    return share


def _known_name(name: str, network: LayerCalls) -> str:
    if name in network.names:
        return name
    parts = {known: known.rpartition("#") for known in network.names}
    calls = [known for known, (layer, _, number) in parts.items() if layer == name and number.isdigit()]
    if calls:
        raise InputError(
            f"`at` must name one call of a layer that is called several times. Received: {name!r}, called as "
            f"{', '.join(calls)}. Use `at=[{calls[0]!r}]` for the first."
        )
    inner = [known for known in network.names if known.endswith(f"/{name}")]
    if inner:
        raise InputError(
            f"`at` must name layers inside nested models with the models' names before theirs. Received: "
            f"{name!r}. Use {' or '.join(map(repr, inner))}."
        )
    raise unknown_name("at", name, network.names)


def _nearest(share: float, rows: Sequence[ExitCandidate], network: LayerCalls) -> ExitCandidate:
    unknown = [call.name for call in network.calls if layer_macs(call) is None]
    if unknown:
        raise InputError(
            "`at` must name layers where the MACs of a layer are unknown. Received: the share "
            f"{share:.3g}, and {len(unknown)} such layers, the first being {unknown[0]!r}."
        )
    layer_of = {call.name: call.layer for call in network.calls}
    possible = [
        row
        for row in rows
        if row.possible and row.share and not isinstance(layer_of[row.layer], _ONLY_PASS_ON)
    ]
    if not possible:
        raise InputError(
            "`at` needs a network with a layer that can carry an exit. Received: a share, and none such. "
            "`exit_candidates` tells why."
        )

    def rank(place: int) -> tuple[float, bool, int]:
        row = possible[place]
        distance = abs((row.share or 0) - share) + SHARE_PER_LIVE_TENSOR * (row.live_tensors - 1)
        # Feature maps rather than vectors, which have been pooled or flattened; the last of what is left.
        return (round(distance, 9), len(row.shape) < 2, -place)

    return possible[min(range(len(possible)), key=rank)]


def _live_tensors(network: LayerCalls, to_run: int) -> int:
    """Count the tensors that these calls read and do not make: those that have to be there before them."""
    left = [call for place, call in enumerate(network.calls) if to_run >> place & 1]
    made_later = {id(tensor) for call in left for tensor in call.outputs}
    return len({id(tensor) for call in left for tensor in call.inputs} - made_later)


def _sum(macs: Sequence[int | None], places: int) -> int | None:
    total = 0
    for place, count in enumerate(macs):
        if places >> place & 1:
            if count is None:
                return None
            total += count
    return total


def reason_against(features: tuple[Any, ...], network: LayerCalls) -> str | None:
    """Return why no exit can read these tensors, or None."""
    outputs = {id(tensor) for tensor in keras.tree.flatten(network.outputs)}
    if len(features) != 1:
        return f"it has {len(features)} outputs, and an exit reads one"
    tensor = features[0]
    if id(tensor) in outputs:
        return "it is an output of the network already"
    if not keras.backend.is_float_dtype(tensor.dtype):
        return f"its output is {tensor.dtype}, and heads read floats"
    if len(tensor.shape) not in (2, 3, 4):
        return f"its output is of rank {len(tensor.shape)}, and heads read rank 2 to 4"
    if tensor.shape[-1] is None:
        return "the last dimension of its output is not fixed"
    return None

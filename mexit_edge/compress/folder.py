"""What the rules of folding are given to work with (see `folding_rules`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mexit_edge.compress.flat_graph import Call
from mexit_edge.errors import InputError
from mexit_edge.models.int8_support import layer_suggestion


class Folder(Protocol):
    """What a rule needs of the folding under way."""

    def once(self, call: Call, make: Callable[[str], Any], part: str = "") -> Any:
        """Return the new layer for a part of an old one, made at the first of its calls."""

    def rank(self, number: int) -> int:
        """Return the rank of a tensor of the old network, the batch included."""

    def shape(self, number: int) -> tuple[int | None, ...]:
        """Return the shape of a tensor of the old network, the batch first."""

    def activated(self, call: Call, tensor: Any, activation: Any) -> Any:
        """Return the activation of a tensor, as layers of its own."""


Rule = Callable[[Folder, Call, list[Any]], Any]

# Of layers that int8 operators do stand for: what they do not have is a fake quantization.
_ADVICE = {
    "Normalization": "Normalise the windows before the network.",
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional"), "Use convolutions."),
}
_OTHER_ADVICE = "Replace it, or quantize the network after training, without fake quantization."


def refused(call: Call, advice: str | None = None) -> InputError:
    """Return the error for a layer without a form that int8 kernels have."""
    kind = type(call.layer).__name__
    if type(call.layer).__module__.partition(".")[0] not in ("keras", "mexit_edge"):
        advice = "Its own `call` may compute anything: use a layer of Keras itself."
    advice = advice or _ADVICE.get(kind) or layer_suggestion(call.layer) or _OTHER_ADVICE
    return InputError(
        "`network` must consist of layers that fake quantization knows. Received: the layer "
        f"{call.name!r} ({kind}). {advice}"
    )


def refuse_mixed_ranks(folder: Folder, call: Call) -> None:
    """Refuse a call of tensors of several ranks, which would meet at another axis in the height-1 form."""
    ranks = sorted({folder.rank(number) for number in call.inputs})
    if len(ranks) > 1:
        raise refused(call, f"Give its inputs the same rank; they have {ranks}, the batch included.")


def refuse_channels_first(call: Call) -> None:
    """Refuse a layer whose channels do not come last."""
    if getattr(call.layer, "data_format", None) == "channels_first":
        raise refused(call, "Use channels_last.")

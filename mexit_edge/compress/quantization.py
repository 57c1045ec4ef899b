"""What a network's numbers become on the way to TFLite: the kinds of quantization there are."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from mexit_edge.errors import InputError, unknown_name

# Kind -> type of the activations, which is that of inputs and outputs too unless `io` says otherwise.
ACTIVATIONS = MappingProxyType(
    {"int8": "int8", "int16": "int16", "float16": "float32", "dynamic": "float32", "float32": "float32"}
)
KINDS = tuple(ACTIVATIONS)
INTEGER_KINDS = ("int8", "int16")


@dataclass(frozen=True)
class Quantization:
    """How a network is quantized.

    Which engine runs which kind stands in docs/quantization.md; bundles are int8.

    Args:
        kind: ``"int8"``: weights and activations in 8 bits. ``"int16"``: activations in 16 bits, weights in
            8. ``"float16"``: weights stored in 16-bit floating point. ``"dynamic"``: weights stored in 8
            bits, activations quantized anew in every inference. ``"float32"``: nothing is quantized.
        io: type of inputs and outputs: that of the activations (the default), or ``"float32"``.
        per_channel: whether weights have a scale per output channel, or one per tensor (``"int8"`` only).
        input_limit: largest magnitude of the range of inputs, beyond which they saturate, in the units that
            the network takes: behind a normalisation, standard deviations (integer kinds only). None for the
            range of the representative windows, as where they stay below the limit. One jolt among them makes
            the steps of an input too coarse for what is quiet (docs/quantization.md).

    Raises:
        InputError: no such kind, or an option that it does not have.
    """

    kind: str = "int8"
    io: str = ""
    per_channel: bool = True
    input_limit: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("quantization", self.kind, KINDS)
        activations = ACTIVATIONS[self.kind]
        allowed = list(dict.fromkeys((activations, "float32")))
        if self.io and self.io not in allowed:
            raise InputError(
                f"`io` must be one of: {', '.join(allowed)}, for the quantization {self.kind!r}. "
                f"Received: {self.io!r}. Leave it out for {activations!r}."
            )
        if not self.io:
            object.__setattr__(self, "io", activations)
        if not self.per_channel and self.kind != "int8":
            raise InputError(
                "`per_channel` must be left out unless the quantization is 'int8': the converter has no "
                f"choice of scales elsewhere. Received: {self.per_channel} with {self.kind!r}."
            )
        if self.input_limit is not None:
            if not self.is_integer:
                raise InputError(
                    f"`input_limit` must be left out for {self.kind!r}, whose inputs have no range. "
                    f"Received: {self.input_limit}."
                )
            if not 0 < self.input_limit < inf:
                raise InputError(f"`input_limit` must be positive and finite. Received: {self.input_limit}.")

    @property
    def is_integer(self) -> bool:
        """Whether every operator computes on integers, in ranges observed on representative windows."""
        return self.kind in INTEGER_KINDS


def as_quantization(quantization: str | Quantization) -> Quantization:
    """Return a quantization given by its kind's name, or as it is.

    Raises:
        InputError: no such kind.
    """
    return quantization if isinstance(quantization, Quantization) else Quantization(quantization)

"""Which tensors of a folded network share a range, because somewhere they are concatenated."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

import keras

from mexit_edge.compress.flat_graph import Call, FlatGraph

layers = keras.layers


@dataclass(eq=False)
class JointRanges:
    """Tensors by the range that they share.

    The int8 operator CONCATENATION has one scale for its inputs and its output, and operators that only move
    values have one on both sides. So all that such operators connect is one group, with one range. Whatever
    has a range of its own that is not free to be another one (logits, outputs of a sigmoid) stays outside,
    and so does the output of a concatenation that reads it.

    Args:
        graph: of the folded network.
        is_moving: tells whether a call only moves values.
        given: tensors whose range is not free.

    Attributes:
        sources: group -> the tensors that are computed, whose extremes are those of the group.
        last: group -> the last concatenation of its tensors; none where there is none.
    """

    graph: FlatGraph
    is_moving: Callable[[Call], bool]
    given: Set[int]
    sources: dict[int, list[int]] = field(default_factory=dict)
    last: dict[int, Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._above: dict[int, int] = {}
        apart, moved, joined = set(self.given), set(), []
        for call in self.graph.calls:
            if self.is_moving(call):
                self._join(call.output, call.inputs[0])
                moved.add(call.output)
            elif isinstance(call.layer, layers.Concatenate):
                if {self.group(number) for number in call.inputs} & {self.group(number) for number in apart}:
                    apart.add(call.output)
                    continue
                for number in call.inputs:
                    self._join(number, call.output)
                moved.add(call.output)
                joined.append(call)
        for number in self.graph.shapes:
            if number not in moved and not self._is_mean_of_its_group(number):
                self.sources.setdefault(self.group(number), []).append(number)
        self.last = {self.group(call.output): call for call in joined}

    def group(self, number: int) -> int:
        """Return the group of a tensor, as the number of one of its tensors."""
        while number in self._above:
            number = self._above[number]
        return number

    def is_joined(self, call: Call) -> bool:
        """Return whether the inputs of a concatenation are of one group with its output."""
        return all(self.group(number) == self.group(call.output) for number in call.inputs)

    def _join(self, one: int, other: int) -> None:
        above, below = self.group(one), self.group(other)
        if above != below:
            self._above[below] = above

    def _is_mean_of_its_group(self, number: int) -> bool:
        """Return whether a tensor is an average of one of its group, and so never beyond its extremes."""
        maker = self.graph.maker_of(number)
        if maker is None or not isinstance(maker.layer, layers.GlobalAveragePooling2D):
            return False
        return self.group(maker.inputs[0]) == self.group(number)

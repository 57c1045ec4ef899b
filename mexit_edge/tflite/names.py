"""What the tensors of a model are called."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from mexit_edge.errors import InputError
from mexit_edge.tflite.graph import Graph

INPUT_NAME = "window"
LISTED = 12


def tensor_names(graph: Graph) -> dict[int, str]:
    """Return a name of its own for every tensor: of the signature, else of the file, else its index."""
    named = (graph.signature_inputs | graph.signature_outputs).items()
    names = {index: name for name, index in named if name and not name.startswith("#")}
    taken = set(names.values())
    for tensor in graph.tensors:
        if tensor.index not in names:
            # "#12" always means the index.
            free = tensor.name and tensor.name not in taken and not tensor.name.startswith("#")
            names[tensor.index] = tensor.name if free else f"#{tensor.index}"
            taken.add(names[tensor.index])
    return names


def short_name(name: str) -> str:
    """Return the first of the names that the converter strings together for a fused operator."""
    return name.partition(";")[0]


def bundle_input_names(graph: Graph) -> dict[int, str]:
    """Return the names of the inputs as a bundle has them: ``"window"``, or several of the signature.

    Raises:
        InputError: one of several has no name.
    """
    if len(graph.inputs) == 1:
        return {graph.inputs[0]: INPUT_NAME}
    names = {index: name for name, index in graph.signature_inputs.items()}
    unnamed = [index for index in graph.inputs if index not in names]
    if unnamed or not graph.inputs:
        raise InputError(
            "a model to cut needs a signature that names its inputs, or a single one. "
            f"Received: {len(graph.inputs)} inputs, {len(unnamed)} without a name."
        )
    return names


def find_tensor(graph: Graph, names: Mapping[int, str], wanted: str | int) -> int:
    """Return the index of a tensor given by name or index.

    Args:
        graph: the whole.
        names: of `tensor_names`; names of the file that are hidden behind them are known too.
        wanted: a name, the first part of a name that the converter strung together with ``;`` where no other
            begins so, ``12`` or ``"#12"``.

    Raises:
        InputError: there is none, and the nearest names are listed; or several names begin so.
    """
    by_name = {name: index for index, name in names.items()}
    by_name |= {tensor.name: tensor.index for tensor in reversed(graph.tensors) if tensor.name not in by_name}
    if isinstance(wanted, str) and wanted in by_name:
        return by_name[wanted]
    digits = str(wanted).removeprefix("#")
    if digits.isdecimal() and int(digits) < len(graph.tensors):
        return int(digits)
    starting = sorted(
        {index for name, index in by_name.items() if index in graph.producers and short_name(name) == wanted}
    )
    if len(starting) == 1:
        return starting[0]
    if starting:
        raise InputError(
            f"`tensors` must name one tensor each. Received: {wanted!r}, with which the names of the tensors "
            f"{', '.join(map(str, starting))} begin. Use the index."
        )
    raise _no_such_tensor({index: short_name(names[index]) for index in graph.producers}, wanted)


def _no_such_tensor(computed: Mapping[int, str], wanted: str | int) -> InputError:
    """Return the error that lists tensors by index and name: all of few, or those with the nearest names."""
    near = get_close_matches(str(wanted), computed.values(), n=5, cutoff=0.3)
    listed = [
        str(index) if name == f"#{index}" else f"{index} ({name})"
        for index, name in computed.items()
        if len(computed) <= LISTED or not near or name in near
    ]
    if len(computed) > LISTED and near:
        return InputError(
            f"`tensors` must name tensors that an operator computes. Received: {wanted!r}. "
            f"The nearest names are: {', '.join(listed[:LISTED])}."
        )
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(
        f"`tensors` must be one of, by index or name: {', '.join(listed[:LISTED])}"
        f"{', ...' if len(listed) > LISTED else ''}. Received: {wanted!r}.{suggestion}"
    )

"""Cut a model into a chain of stage models.

The operators, their weights and every quantization are copied as they are, so that the stages compute what
the whole model computes, bit for bit. What later stages need from earlier ones crosses as boundary tensors;
one that a stage does not touch stays with the caller, who keeps all live tensors by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mexit_edge.errors import InputError
from mexit_edge.tflite.checks import refuse_uncuttable
from mexit_edge.tflite.extract import extract
from mexit_edge.tflite.graph import Graph, Tensor
from mexit_edge.tflite.liveness import needed_operators
from mexit_edge.tflite.names import bundle_input_names, find_tensor, tensor_names
from mexit_edge.tflite.plan import StagePlan, ancestors, plan_stages
from mexit_edge.tflite.points import MAX_LIVE, most_even, points_of

_OWN = "an operator of their own. Received: "
_TAKEN = ", which earlier ones compute already, or none does. Put them in the order in which they run."


@dataclass(frozen=True)
class CutStage:
    """One stage as cut from the whole model.

    Args:
        content: the stage's .tflite.
        inputs: (name, tensor of the whole model) per input, in the order of the file.
        outputs: the same per output; what the stage was cut for comes first, for example an exit's logits.
        operators: number of operators per name.
        places: indices of its operators in the whole model, in order of execution; a view that several stages
            read stands in each of them.
    """

    content: bytes
    inputs: tuple[tuple[str, Tensor], ...]
    outputs: tuple[tuple[str, Tensor], ...]
    operators: dict[str, int]
    places: tuple[int, ...]


def cut_at_exits(content: bytes, exits: Sequence[str], *, keep_names: bool = False) -> tuple[CutStage, ...]:
    """Cut a model at its exits.

    Stage k holds the operators that exit k needs and no earlier stage has run. A single input is called
    ``"window"``; several have the names of the signature.

    Args:
        content: a .tflite with a signature that names its outputs.
        exits: output names in the order in which the exits are to run.
        keep_names: whether stages keep the names of tensors and the metadata, with a signature of their own.

    Returns:
        One stage per exit.

    Raises:
        InputError: an exit is no output, two exits are one tensor, an exit needs no operator of its own, the
            model has dynamic shapes or keeps a state, or as for `Graph`.
    """
    graph = Graph(content)
    if not graph.signature_outputs:
        raise InputError(
            "`exits` need a signature of the file, which names its outputs. Received: a file without one. "
            "Cut it at tensors instead: `mexit cut --at`, or `tflite.cut_at`."
        )
    missing = [name for name in exits if name not in graph.signature_outputs]
    if missing or not exits:
        raise InputError(
            f"`exits` must name outputs of the model ({', '.join(sorted(graph.signature_outputs))}). "
            f"Received: {', '.join(exits) or 'none'}."
        )
    logits = [graph.signature_outputs[name] for name in exits]
    if len(set(logits)) != len(logits):
        raise InputError(
            f"`exits` must be distinct tensors. Received: {', '.join(exits)}, of which two are one."
        )
    refuse_uncuttable(graph)
    stages = _partition(graph, logits, [f"`exits` must each need {_OWN}{name}{_TAKEN}" for name in exits])
    plans = plan_stages(graph, stages, [[tensor] for tensor in logits])
    names = bundle_input_names(graph)
    for number, (plan, exit_name) in enumerate(zip(plans, exits, strict=True), start=1):
        names[plan.outputs[0]] = f"{exit_name}_logits"
        for place, tensor in enumerate(plan.outputs[1:], start=1):
            names[tensor] = f"stage_{number:02d}_features_{place:02d}"
    if len(set(names.values())) < len(names):
        raise InputError(
            "inputs must not have the names that stages give their outputs (`exit_01_logits` and the like). "
            f"Received: {', '.join(sorted(graph.signature_inputs))}. Rename the network's inputs."
        )
    return _stages(graph, plans, names, keep_names=keep_names)


def cut_at(content: bytes, tensors: Sequence[str | int], *, keep_names: bool = False) -> tuple[CutStage, ...]:
    """Cut any model at given tensors.

    Stage k holds the operators that tensor k needs and no earlier stage has run; one more stage holds what
    the model's outputs need beyond that, if anything. A stage gives its tensor first, then the outputs of the
    model that it computes.

    Args:
        content: a .tflite.
        tensors: names as in the file or its signature, or what stands before the first ``;`` of one, or
            indices as ``12`` or ``"#12"``, in the order in which they are to be computed.
        keep_names: as for `cut_at_exits`.

    Raises:
        InputError: no such tensor, one that needs no operator of its own, one that no output needs, an output
            that no operator computes; or as for `cut_at_exits`.
    """
    graph = Graph(content)
    refuse_uncuttable(graph)
    names = tensor_names(graph)
    targets = [find_tensor(graph, names, tensor) for tensor in tensors]
    if not targets:
        raise InputError("`tensors` must name at least one tensor to cut at. Received: none.")
    needed = set(_needed(graph, names))
    stages = _partition(
        graph, targets, [f"`tensors` must each need {_OWN}{names[target]}{_TAKEN}" for target in targets]
    )
    idle = [names[target] for target in targets if graph.producers[target] not in needed]
    if idle:
        raise InputError(
            f"`tensors` must name tensors that an output of the model needs. Received: {idle[0]}, which no "
            "output needs."
        )
    rest = needed.difference(*stages)
    whole = [*stages, rest] if rest else stages
    wanted = [[target] for target in targets] + ([[]] if rest else [])
    return _stages_with_outputs(graph, whole, wanted, names, keep_names=keep_names)


def cut_at_positions(
    content: bytes, positions: Sequence[int], *, keep_names: bool = False
) -> tuple[CutStage, ...]:
    """Cut any model between operators, in their order of execution.

    Args:
        content: a .tflite.
        positions: of cut points (`cut_points`), ascending.
        keep_names: as for `cut_at_exits`.

    Raises:
        InputError: ``positions`` are not ascending, or a stage would have nothing to compute but views; or as
            for `cut_at_exits`.
    """
    graph = Graph(content)
    refuse_uncuttable(graph)
    return _cut_between(graph, positions, keep_names=keep_names)


def cut_into(
    content: bytes,
    n: int,
    macs: Sequence[int | None],
    *,
    max_live: int = MAX_LIVE,
    keep_names: bool = False,
) -> tuple[CutStage, ...]:
    """Cut any model into n stages of nearly equal work.

    Of all ways to choose n - 1 cut points (`cut_points`), one is taken that makes the largest stage smallest;
    among those, the one with the fewest elements on its boundaries.

    Args:
        content: a .tflite.
        n: number of stages, at least 2.
        macs: multiply-accumulates per operator of the file, as ``estimate.operations`` counts them: None,
            which is unknown, is refused.
        max_live: largest number of tensors at a boundary.
        keep_names: as for `cut_at_exits`.

    Raises:
        InputError: there are fewer cut points than needed, ``macs`` does not fit; or as for `cut_at_exits`.
    """
    graph = Graph(content)
    refuse_uncuttable(graph)
    if len(macs) != len(graph.operators) or any(value is not None and value < 0 for value in macs):
        raise InputError(
            f"`macs` needs one count per operator ({len(graph.operators)}), from 0 on. "
            f"Received: {len(macs)} counts. Use `estimate.operations(content)`."
        )
    unknown = [one.name for one, value in zip(graph.operators, macs, strict=True) if value is None]
    if unknown:
        raise InputError(
            "`n` needs a model whose MACs are known, of which every stage gets a nearly equal share. "
            f"Received: {', '.join(dict.fromkeys(unknown))} of unknown MACs. Cut at tensors or at exits."
        )
    known = [value for value in macs if value is not None]
    positions = most_even(points_of(graph, max_live), known, n)
    return _cut_between(graph, positions, keep_names=keep_names)


def _partition(graph: Graph, targets: Sequence[int], refusals: Sequence[str]) -> list[set[int]]:
    """Return per target the operators it needs beyond those of the targets before it."""
    done: set[int] = set()

    def is_fresh(operator: int, _: int) -> bool:
        return operator not in done

    stages = []
    for target, refusal in zip(targets, refusals, strict=True):
        fresh = ancestors(graph, [target], is_fresh)
        if not fresh:
            raise InputError(refusal)
        stages.append(fresh)
        done |= fresh
    return stages


def _cut_between(graph: Graph, positions: Sequence[int], *, keep_names: bool) -> tuple[CutStage, ...]:
    names = tensor_names(graph)
    needed = _needed(graph, names)
    borders = [0, *positions, len(graph.operators)]
    stages = [{index for index in needed if low <= index < high} for low, high in pairwise(borders)]
    if borders != sorted(borders) or not all(stages):
        raise InputError(
            "`positions` must be ascending, with an operator that an output needs in every stage. "
            f"Received: {', '.join(map(str, positions))}, for {len(graph.operators)} operators."
        )
    return _stages_with_outputs(graph, stages, [[] for _ in stages], names, keep_names=keep_names)


def _needed(graph: Graph, names: Mapping[int, str]) -> list[int]:
    idle = [index for index in graph.outputs if index not in graph.producers]
    if idle or not graph.outputs:
        raise InputError(
            "every output of a model to cut must be computed by an operator. "
            f"Received: {names[idle[0]] if idle else 'no output'}, which none computes."
        )
    return needed_operators(graph)


def _stages_with_outputs(
    graph: Graph,
    stages: Sequence[set[int]],
    wanted: Sequence[Sequence[int]],
    names: Mapping[int, str],
    *,
    keep_names: bool,
) -> tuple[CutStage, ...]:
    """Make stages that give, besides what is wanted, the outputs of the model that they compute."""
    outputs = dict.fromkeys(graph.outputs)
    whole = [
        [*first, *(tensor for tensor in outputs if graph.producers[tensor] in own and tensor not in first)]
        for own, first in zip(stages, wanted, strict=True)
    ]
    return _stages(graph, plan_stages(graph, stages, whole), names, keep_names=keep_names)


def _stages(
    graph: Graph, plans: Sequence[StagePlan], names: Mapping[int, str], *, keep_names: bool
) -> tuple[CutStage, ...]:
    """Write the stages, after checking that each finds what it reads."""
    available = set(graph.inputs)
    stages = []
    for number, plan in enumerate(plans, start=1):
        if not plan.operators:
            raise InputError(f"every stage must compute something but views. Received: stage {number}.")
        unknown = [tensor for tensor in plan.inputs if tensor not in available]
        if unknown:
            raise InputError(
                "every operator must read what an input or another operator gives. "
                f"Received: tensor {unknown[0]}, which nothing computes."
            )
        available.update(plan.outputs)
        counts = Counter(graph.operators[index].name for index in plan.operators)
        stages.append(
            CutStage(
                content=extract(
                    graph, plan.operators, plan.inputs, plan.outputs, names if keep_names else None
                ),
                inputs=tuple((names[tensor], graph.tensors[tensor]) for tensor in plan.inputs),
                outputs=tuple((names[tensor], graph.tensors[tensor]) for tensor in plan.outputs),
                operators=dict(sorted(counts.items())),
                places=plan.operators,
            )
        )
    return tuple(stages)

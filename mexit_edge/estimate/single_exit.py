"""What the same network costs without its early exits: run as one model, to the final logits only.

The early heads of a multi-exit network cost something in every window that runs past them, and every stage
is an invocation of its own. A network with a single exit pays neither. Its decisions are those of the final
exit, bit by bit, because the operators that are left compute what they computed before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from mexit_edge.bundle import Bundle, StageSpec
from mexit_edge.estimate.device import Device, load_device
from mexit_edge.estimate.estimate import DEFAULT_DEVICE
from mexit_edge.estimate.latency.workload import workload
from mexit_edge.estimate.operations import OperationCost, known_sum, operations
from mexit_edge.estimate.relatives import find_stack
from mexit_edge.estimate.results import Cost, priced
from mexit_edge.tflite import Graph
from mexit_edge.tflite.plan import VIEWS


def single_exit_cost(
    bundle: Bundle,
    device: str | Device = DEFAULT_DEVICE,
    stack: str | None = None,
    *,
    extrapolate: bool = False,
) -> Cost:
    """Estimate one run of the bundle's network without its early heads, as one model in one invocation.

    Args:
        bundle: the bundle.
        device: a name (see `device_names`) or a device.
        stack: a kernel library of the device, by name or family; the first one if None.
        extrapolate: as for `estimate_bundle`.

    Raises:
        InputError: the device or stack is unknown, or computes on another type.
    """
    board = load_device(device) if isinstance(device, str) else device
    library = find_stack(board, stack, extrapolate=extrapolate)
    costs = single_exit_operations(bundle)
    return Cost(
        **priced(workload(costs, library), board, library),
        macs=known_sum(cost.macs for cost in costs),
        live_macs=known_sum(cost.live_macs for cost in costs),
    )


def single_exit_macs(bundle: Bundle) -> int | None:
    """Return the multiply-accumulates of one such run; None where an operator is unknown.

    Raises:
        InputError: as for `operations`.
    """
    return known_sum(cost.macs for cost in single_exit_operations(bundle))


def single_exit_operations(bundle: Bundle) -> tuple[OperationCost, ...]:
    """Return the operators that the final logits need, in order of execution.

    What the stages compute is followed back from the final logits through the boundaries. A reshaped view
    that the cut copied into several stages counts once. Constant channels are followed within a stage only,
    so that `live_macs` is an upper bound here too.

    Args:
        bundle: the bundle.

    Raises:
        InputError: as for `operations`.
    """
    specs = bundle.manifest.stages
    graphs = [Graph(content) for content in bundle.stages]
    kept: list[tuple[int, ...]] = []
    wanted = {specs[-1].outputs[0].name}
    for spec, graph in zip(reversed(specs), reversed(graphs), strict=True):
        found, read = _needed(graph, spec, wanted)
        kept.insert(0, found)
        # A boundary that only a later stage reads stays wanted until the stage that makes it.
        wanted |= read
    return tuple(_without_copied_views(graphs, specs, kept))


def _needed(graph: Graph, spec: StageSpec, wanted: set[str]) -> tuple[tuple[int, ...], set[str]]:
    """Return the operators of a stage that make the wanted tensors, and the names of the inputs they read."""
    # Inputs and outputs stand in the manifest's order, which `runtime.open_stage` checks.
    places = zip(graph.outputs, spec.outputs, strict=True)
    open_ = [index for index, tensor in places if tensor.name in wanted]
    seen = set(open_)
    found = set()
    while open_:
        producer = graph.producers.get(open_.pop())
        if producer is None:
            continue
        found.add(producer)
        fresh = set(graph.activations(graph.operators[producer])) - seen
        seen |= fresh
        open_ += fresh
    read = {tensor.name for index, tensor in zip(graph.inputs, spec.inputs, strict=True) if index in seen}
    return tuple(sorted(found)), read


def _without_copied_views(
    graphs: list[Graph], specs: tuple[StageSpec, ...], kept: list[tuple[int, ...]]
) -> Iterator[OperationCost]:
    seen: set[Hashable] = set()
    for number, (graph, spec, chosen) in enumerate(zip(graphs, specs, kept, strict=True)):
        # What a tensor holds: a boundary, a view of one with a shape, or something of this stage alone.
        holds: dict[int, Hashable] = {
            index: tensor.name for index, tensor in zip(graph.inputs, spec.inputs, strict=True)
        }
        costs = operations(graph)
        for index in chosen:
            operator = graph.operators[index]
            if operator.name in VIEWS:
                source = holds.get(operator.inputs[0], (number, operator.inputs[0]))
                view = (source, graph.tensors[operator.outputs[0]].shape)
                holds[operator.outputs[0]] = view
                if view in seen:
                    continue
                seen.add(view)
            yield costs[index]

"""`mexit estimate --device ethos-u...`: what Arm's compiler expects, stage by stage, in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.estimate_request import EnergyRequest, EstimateRequest, Subject
from mexit_edge.cli.estimate_tables import count, plain, show
from mexit_edge.cli.tables import console, print_json
from mexit_edge.errors import InputError, in_digits
from mexit_edge.estimate.ethos_u import EthosUEstimate, estimate_ethos_u

# Family -> clock and memories in the compiler's configuration file, the smallest that it knows.
SYSTEMS = {
    "ethos-u55": "Ethos_U55_Deep_Embedded",
    "ethos-u65": "Ethos_U65_Embedded",
    "ethos-u85": "Ethos_U85_SYS_Flash_Low",
}


def estimate_ethos_u_and_print(subject: Subject, request: EstimateRequest, *, as_json: bool) -> None:
    """Compile a model, or every stage of a bundle, for an Ethos-U, and print what the compiler expects.

    Raises:
        InputError: an option does not apply to it, or the NPU takes no operator of the model.
        MissingExtraError: Vela is not installed.
        RunError: Vela failed.
    """
    accelerator = str(request.device)
    _refuse_options(request, accelerator)
    system = SYSTEMS[accelerator.rpartition("-")[0]]
    found = {
        name: estimate_ethos_u(content, accelerator, system_config=system)
        for name, content in _parts(subject).items()
    }
    if as_json:
        parts = [{"what": name, **asdict(one), "complete": one.complete} for name, one in found.items()]
        print_json({"name": subject.name, "device": accelerator, "parts": parts})
    else:
        _print(subject.name, found, explain=request.explain)


def _refuse_options(request: EstimateRequest, accelerator: str) -> None:
    given = {
        "--stack": request.stack is not None,
        "--extrapolate": request.extrapolate,
        "--price": bool(request.price),
        "--exit-shares": request.exit_shares is not None,
        "--compare": request.compare,
        "--figure": request.figure is not None,
        "--period-ms, --rest, --sensor-mw, --supply-v and --battery-...": request.energy != EnergyRequest(),
    }
    wrong = [option for option, is_given in given.items() if is_given]
    if wrong:
        raise InputError(
            f"`--device` {accelerator} takes no other option than `--explain` and `--json`: the compiler "
            f"states cycles and memory alone. Received: {', '.join(wrong)}. Leave them out."
        )


def _parts(subject: Subject) -> Mapping[str, bytes]:
    if isinstance(subject.whole, bytes):
        return {"model": subject.whole}
    return {f"stage {number}": part for number, part in enumerate(subject.whole.stages, start=1)}


def _print(name: str, found: Mapping[str, EthosUEstimate], *, explain: bool) -> None:
    first = next(iter(found.values()))
    screen = console(quiet=False)
    table = plain(
        f"{name} on {first.accelerator} at {in_digits(first.core_clock_mhz)} MHz, by its compiler",
        "",
        (
            "NPU's\nMACs",
            "compiler's\ncycles",
            "compiler's\nlatency, ms",
            "SRAM,\nbytes",
            "flash,\nbytes",
            "CPU's\noperators",
        ),
    )
    for what, one in found.items():
        table.add_row(
            what,
            count(one.npu_macs),
            count(one.compiler_cycles),
            in_digits(one.compiler_latency_ms),
            count(one.sram_bytes),
            count(one.flash_bytes),
            str(len(one.cpu_operators)),
        )
    show(screen, table)
    screen.print(f"Compiled for {first.system_config}, {first.memory_mode}.", markup=False)
    for note in dict.fromkeys(note for one in found.values() for note in one.notes):
        screen.print(note, markup=False)
    if explain:
        show(screen, _layer_table(found))


def _layer_table(found: Mapping[str, EthosUEstimate]) -> Table:
    table = plain(
        "Operations of the compiled model", "", ("operator", "on", "compiler's\ncycles", "MACs", "name")
    )
    for what, one in found.items():
        for layer in one.layers:
            table.add_row(
                what,
                escape(layer.operator),
                layer.target,
                count(layer.compiler_cycles),
                count(layer.macs),
                escape(layer.name),
            )
    return table

"""`mexit inspect`: what is in a bundle, and does it still do what it says; or what is in a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mexit_edge.bundle import Bundle
from mexit_edge.cli.golden import GoldenCheck, check_golden, print_golden, refuse_wrong_golden
from mexit_edge.cli.inspect_cut import cut_manifest_of, inspect_cut_and_print
from mexit_edge.cli.inspect_model import SUFFIX as TFLITE_SUFFIX
from mexit_edge.cli.inspect_model import inspect_model_and_print
from mexit_edge.cli.inspect_network import SUFFIX as KERAS_SUFFIX
from mexit_edge.cli.inspect_network import inspect_network_and_print
from mexit_edge.cli.stage_drawing import stage_drawing
from mexit_edge.cli.tables import console, memory_facts, memory_table, print_json, stage_table
from mexit_edge.errors import InputError
from mexit_edge.estimate import bundle_memory
from mexit_edge.files import refuse_existing, write_bytes


def inspect_and_print(path: Path, *, as_json: bool, svg: Path | None = None) -> None:
    """Load, verify and describe a bundle; list a .keras file's layers, a .tflite's operators, a cut's stages.

    Args:
        path: of a bundle, of a file, or of a folder that `mexit cut` wrote.
        as_json: whether to print JSON.
        svg: where to draw a bundle's stages; None for no picture.

    Raises:
        InputError: it is not whole, or ``svg`` exists or comes without a bundle.
        RunError: a bundle's golden vectors come out otherwise here; after all was printed.
    """
    describe = {KERAS_SUFFIX: inspect_network_and_print, TFLITE_SUFFIX: inspect_model_and_print}.get(
        path.suffix.lower()
    )
    if (manifest := cut_manifest_of(path)) is not None:
        path, describe = manifest, inspect_cut_and_print
    if describe is None:
        _inspect_bundle(path, as_json=as_json, svg=svg)
        return
    if svg is not None:
        raise InputError(f"`--svg` must come with a bundle, whose stages it draws. Received: {path}.")
    describe(path, as_json=as_json)


def _inspect_bundle(path: Path, *, as_json: bool, svg: Path | None) -> None:
    if svg is not None:
        refuse_existing(svg, overwrite=False)
    bundle = Bundle.load(path)
    golden = check_golden(bundle)
    if svg is not None:
        _write_picture(bundle, svg)
    if as_json:
        print_json(
            {
                "manifest": bundle.manifest.model_dump(mode="json"),
                "memory": memory_facts(bundle_memory(bundle)),
            }
            | golden.facts()
        )
    else:
        _print(bundle, golden)
    refuse_wrong_golden(path, golden)


def _write_picture(bundle: Bundle, path: Path) -> None:
    from mexit_edge.report import plot_stages
    from mexit_edge.report.theme import svg

    write_bytes(path, svg(partial(plot_stages, bundle.manifest)))


def _print(bundle: Bundle, golden: GoldenCheck) -> None:
    screen = console(quiet=False)
    screen.print(stage_table(bundle.manifest))
    screen.print(stage_drawing(bundle.manifest))
    screen.print(memory_table(bundle_memory(bundle)))
    policy = bundle.manifest.policy
    if policy is None:
        screen.print("No policy: every window runs to the final exit.")
    else:
        limits = ", ".join(map(str, policy.thresholds_int)) or "none"
        screen.print(f"Policy: {policy.score}, integer thresholds {limits}.", markup=False)
    print_golden(golden, screen)
    if golden.tensors is None:
        screen.print("No golden vectors.")
    if bundle.phone is not None:
        screen.print(f"All stages in one file, phone.tflite: {len(bundle.phone):,} bytes.", markup=False)

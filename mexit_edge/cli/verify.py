"""`mexit verify`: do all engines compute and decide alike, and as the golden vectors say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from mexit_edge.bundle import Bundle
from mexit_edge.cli.golden import GoldenCheck, check_golden, print_golden, refuse_wrong_golden
from mexit_edge.cli.tables import console, print_json
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.data.windows_file import ARRAY, ARRAYS, read_arrays
from mexit_edge.errors import InputError, RunError, unknown_name
from mexit_edge.runtime import (
    EngineParity,
    available_engines,
    compare_engines,
    reference_engine,
)
from mexit_edge.simulate import raw_windows
from mexit_edge.simulate.evaluate import check_fit

GOLDEN = "golden vectors"
LISTED_DEFECTS = 10


def verify_and_print(
    path: Path,
    *,
    data: str | None,
    windows: Path | None,
    engines: Sequence[str],
    limit: int | None,
    within: int,
    as_json: bool,
) -> None:
    """Run golden windows, and those of a recording, on every engine; print where engines differ.

    Args:
        path: of the bundle.
        data: name of a data set, whose test subjects are run.
        windows: a .npy or .npz of raw windows.
        engines: names; none for all that this machine can run. The reference is compared with the golden
            vectors alone.
        limit: most windows of the recording, evenly spaced; None for all.
        within: largest distance from a threshold, in int8 steps, that counts as rounding.
        as_json: whether to print JSON.

    Raises:
        InputError: the bundle, a name or the windows are wrong, or there is nothing to run.
        RunError: golden decisions or tensors are not reproduced, or a decision differs that rounding does
            not explain; after all was printed.
    """
    if data is not None and windows is not None:
        raise InputError(
            "`--data` and `--windows` must not be given together. Received: both. Leave one out."
        )
    if unknown := [name for name in engines if name not in available_engines()]:
        raise unknown_name("engine", unknown[0], available_engines())
    others = [name for name in engines if name != reference_engine()]
    if engines and not others and (data is not None or windows is not None):
        raise InputError(
            f"`--engine` must name one to compare with the reference, {reference_engine()}. "
            "Received: that one alone. Name another, or leave `--data` and `--windows` out to run the golden "
            "vectors on it."
        )
    bundle = Bundle.load(path)
    samples = _recording(bundle, data, windows, limit)
    if bundle.golden is None and samples is None:
        raise InputError(
            f"`{path}` must hold golden vectors, or windows must come with `--data` or `--windows`. "
            "Received: none of these."
        )
    golden = check_golden(bundle, engines)
    sets: dict[str, NDArray[Any]] = {} if bundle.golden is None else {GOLDEN: bundle.golden.windows}
    if samples is not None:
        sets[data or str(windows)] = samples
    compared = (
        {}
        if engines and not others
        else {name: compare_engines(bundle, x, others or None) for name, x in sets.items()}
    )
    if as_json:
        print_json(_facts(path, golden, compared, within))
    else:
        _print(golden, compared, within)
    _judge(path, golden, compared, within)


def read_windows(path: Path) -> NDArray[Any]:
    """Read raw windows from a file, without pickle.

    Args:
        path: a .npy, or a .npz of one array or with one called ``windows``.

    Raises:
        InputError: it is none of these, or unpacks to more than 1 GiB.
    """
    arrays = read_arrays(path, (ARRAY, ARRAYS))
    if "windows" not in arrays and len(arrays) != 1:
        raise InputError(
            "`--windows` must be an .npz of one array, or with one called 'windows'. "
            f"Received: {', '.join(arrays) or 'none'}."
        )
    return arrays["windows"] if "windows" in arrays else next(iter(arrays.values()))


def _recording(
    bundle: Bundle, data: str | None, windows: Path | None, limit: int | None
) -> NDArray[Any] | None:
    if data is None and windows is None:
        return None
    if windows is not None:
        samples = read_windows(windows)
        if samples.dtype == np.float16 or (samples.dtype != np.int16 and samples.dtype.kind in "iu"):
            raise InputError(
                f"`--windows` must hold int16 counts, or float32 / float64. Received: {samples.dtype}."
            )
    else:
        # Engines are compared, nothing is judged or chosen: the subjects' labels are not looked at.
        test = split_by_subject(load(str(data)), test=dataset(str(data)).standard_test, seed=0).test
        check_fit(bundle, test)
        samples = raw_windows(bundle, test)
    if limit is None or not samples.ndim or limit >= len(samples):
        return samples
    return samples[np.linspace(0, len(samples) - 1, limit).round().astype(np.int64)]


def _facts(
    path: Path, golden: GoldenCheck, compared: dict[str, tuple[EngineParity, ...]], within: int
) -> dict[str, Any]:
    return {
        "bundle": str(path),
        "reference": reference_engine(),
        "within": within,
        **golden.facts(),
        "compared": [
            {
                "windows_of": name,
                "engines": [
                    {
                        "engine": row.engine,
                        "windows": row.windows,
                        "tensors": [asdict(tensor) | {"share": tensor.share} for tensor in row.tensors],
                        "decisions": [
                            asdict(decision) | {"rounding": decision.steps <= within}
                            for decision in row.decisions
                        ],
                    }
                    for row in rows
                ],
            }
            for name, rows in compared.items()
        ],
    }


def _print(golden: GoldenCheck, compared: dict[str, tuple[EngineParity, ...]], within: int) -> None:
    screen = console(quiet=False)
    print_golden(golden, screen)
    for name, rows in compared.items():
        screen.print(_parity_table(name, rows))
        for row in rows:
            screen.print(_sentence(row, within), markup=False)
            for decision in row.defects(within)[:LISTED_DEFECTS]:
                screen.print(
                    f"  window {decision.window}: class {decision.label} at exit {decision.exit}, not class "
                    f"{decision.reference_label} at exit {decision.reference_exit}; {decision.steps} steps, "
                    f"logit margin {decision.logit_margin}.",
                    markup=False,
                )


def _parity_table(name: str, rows: Sequence[EngineParity]) -> Table:
    n = rows[0].windows
    table = Table(title=f"{n:,} windows of {escape(name)}, against {rows[0].reference}")
    table.add_column("tensor")
    for heading in ("elements", "differ", "share", "at most,\nint8 steps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(f"[bold]{row.engine}[/]")
        for tensor in row.tensors:
            table.add_row(
                tensor.tensor,
                f"{tensor.elements:,}",
                f"{tensor.differing_elements:,}",
                f"{tensor.share:.3%}" if tensor.differing_elements else "0",
                str(tensor.largest_difference),
            )
        table.add_section()
    return table


def _sentence(row: EngineParity, within: int) -> str:
    """Say how many decisions differ, and how far they stood from turning."""
    text = f"{row.engine}: {len(row.decisions):,} of {row.windows:,} decisions differ"
    if not row.decisions:
        return f"{text}."
    places = Counter(f"exit_{one.parted_at:02d} {one.cause}" for one in row.decisions)
    where = ", ".join(f"{n} at {place}" for place, n in sorted(places.items()))
    distances = [one.steps for one in row.decisions]
    defects = len(row.defects(within))
    verdict = (
        f"all within {within} steps, as rounding does"
        if not defects
        else f"{defects} beyond {within} steps, which rounding does not explain"
    )
    return f"{text} ({where}), {min(distances)} to {max(distances)} int8 steps from turning: {verdict}."


def _judge(
    path: Path, golden: GoldenCheck, compared: dict[str, tuple[EngineParity, ...]], within: int
) -> None:
    refuse_wrong_golden(path, golden)
    defects = sorted({row.engine for rows in compared.values() for row in rows if row.defects(within)})
    if defects:
        raise RunError(
            f"engines must differ from {reference_engine()} by rounding alone: a decision that differs must "
            f"stand within {within} int8 steps of turning. Received: others on {', '.join(defects)}. "
            "Do not rely on that engine for this bundle, or judge with `--within` what is close enough."
        )

"""`mexit calibrate`: set a bundle's thresholds on calibration windows, and say what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mexit_edge.bundle import Bundle, save_policy
from mexit_edge.cli.calibrate_request import CalibrateRequest, in_option_words
from mexit_edge.cli.calibrate_tables import calibration_facts, print_calibration
from mexit_edge.cli.estimate_request import read_device
from mexit_edge.cli.progress import JobProgress
from mexit_edge.cli.tables import console, print_json
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.data.windows_file import read_labelled
from mexit_edge.errors import InputError
from mexit_edge.exits import NEVER, BudgetedPoint, score_kind
from mexit_edge.files import free_name, refuse_existing, refuse_unwritable, write_bytes
from mexit_edge.runtime import reference_engine
from mexit_edge.signals import Windows
from mexit_edge.simulate import (
    ExitCosts,
    Judged,
    budgeted_points,
    exit_costs,
    judge,
    make_golden,
    with_policy,
)


def calibrate_and_print(path: Path, request: CalibrateRequest, *, as_json: bool) -> None:
    """Set the thresholds, write the bundle, and print what the policy does on the calibration windows.

    Raises:
        InputError: an option is wrong, windows do not fit or were trained on, or the goal is out of reach.
    """
    screen = console(quiet=as_json)
    target = _target(path, request)
    try:
        bundle, judged, costs = _calibrate(Bundle.load(path), request, JobProgress(screen))
    except InputError as error:
        raise InputError(in_option_words(str(error))) from error
    points = budgeted_points(bundle, judged, costs)
    if request.policy_out is not None:
        save_policy(bundle, request.policy_out, overwrite=request.overwrite)
        written = request.policy_out
    else:
        written = make_golden(bundle, judged.windows).save(target, overwrite=request.overwrite)
    _write_curve(bundle, judged, costs, points, request)
    if as_json:
        print_json(calibration_facts(bundle, costs, points, written))
        return
    print_calibration(bundle, costs, written, screen)


def _calibrate(
    bundle: Bundle, request: CalibrateRequest, progress: JobProgress
) -> tuple[Bundle, Judged, ExitCosts]:
    """Return the bundle with its policy, the calibration windows, and what windows cost."""
    goal, scoring, online = request.goal(), request.scoring(), request.online()
    score_kind(scoring.score)
    temporal = request.rules()
    device = None if request.device is None else read_device(request.device)
    costs = exit_costs(bundle, request.cost, device)
    windows = calibration_windows(bundle, request)
    with progress.step(f"Running {len(windows):,} calibration windows to the end on {reference_engine()}"):
        judged = judge(bundle, windows)
    with progress.step("Setting thresholds"):
        return with_policy(bundle, judged, goal, scoring, costs, temporal, online), judged, costs


def calibration_windows(bundle: Bundle, request: CalibrateRequest) -> Windows:
    """Return the windows to calibrate on: calibration subjects of a data set, or a file of one's own.

    Raises:
        InputError: both were given, the data set is unknown, or the file holds no such windows.
    """
    if request.windows is None:
        name = request.data or bundle.manifest.training.data or "hapt"
        split = split_by_subject(load(name), test=dataset(name).standard_test, seed=request.seed)
        return split.calibration
    if request.data is not None:
        raise InputError(
            "`--data` and `--windows` must not be given together. Received: both. Leave one out."
        )
    arrays = read_labelled(request.windows)
    sensor = bundle.manifest.sensor.to_sensor()
    x = arrays["x"]
    if x.dtype == np.int16 and sensor.units_per_count is not None:
        x = x * np.asarray(sensor.units_per_count)
    return Windows.from_arrays(
        x,
        arrays["y"],
        arrays.get("subject"),
        sensor=sensor if x.shape[1:] == sensor.shape else None,
        classes=bundle.manifest.classes,
        name=request.windows.stem,
    )


def _target(path: Path, request: CalibrateRequest) -> Path:
    """Return where the bundle goes, after checking everything that is to be written."""
    if request.policy_out is not None and request.out is not None:
        raise InputError("`--policy-out` takes the place of `--out`. Received: both. Leave one out.")
    for file in (request.policy_out, request.curve, request.figure):
        if file is not None:
            refuse_existing(file, overwrite=request.overwrite)
            refuse_unwritable(file)
    if request.figure is not None and request.figure.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"`--figure` must end in .png or .svg. Received: {request.figure}.")
    if request.policy_out is not None:
        return request.policy_out
    default = free_name(path.with_name(f"{path.stem}-calibrated.mexit"))
    return Bundle.check_target(request.out or default, overwrite=request.overwrite)


def _write_curve(
    bundle: Bundle,
    judged: Judged,
    costs: ExitCosts,
    points: Sequence[BudgetedPoint],
    request: CalibrateRequest,
) -> None:
    if request.curve is not None:
        names = bundle.manifest.exits
        head = ["ratio", "mean_cost", "cost_unit", "balanced_accuracy"]
        head += [f"share_{name}" for name in names] + [f"threshold_{name}" for name in names[:-1]]
        lines = [",".join(head)]
        for point in points:
            cells: list[object] = [point.p, point.mean_cost, f'"{costs.unit}"', point.quality]
            cells += [*point.exit_shares, *("" if one == NEVER else one for one in point.thresholds)]
            lines.append(",".join(map(str, cells)))
        write_bytes(request.curve, ("\n".join(lines) + "\n").encode(), overwrite=request.overwrite)
    if request.figure is not None:
        from mexit_edge.report.calibration_figure import calibration_picture

        kind: Literal["png", "svg"] = "svg" if request.figure.suffix.lower() == ".svg" else "png"
        picture = calibration_picture(bundle.manifest, judged, costs, points, kind)
        write_bytes(request.figure, picture, overwrite=request.overwrite)

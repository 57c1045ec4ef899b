"""Set a bundle's policy on calibration windows, and make the golden vectors that go with it."""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle, Calibration, Golden, Policy
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle, unknown_operations
from mexit_edge.exits import make_score, search_thresholds
from mexit_edge.runtime import Runtime, available_engines, reference_engine
from mexit_edge.signals import Windows
from mexit_edge.simulate.evaluate import check_fit, raw_windows
from mexit_edge.simulate.subjects import FITTED, refuse_seen

GOLDEN_WINDOWS = 48


def calibrate(
    bundle: Bundle,
    windows: Windows,
    *,
    max_drop: float = 0.005,
    score: str = "logit_margin",
    device: str | None = None,
    engine: str | None = None,
) -> Bundle:
    """Search thresholds on calibration windows and return the bundle with that policy.

    Args:
        bundle: the stages.
        windows: of calibration subjects, disjoint from training, validation and test subjects.
        max_drop: largest allowed loss of balanced accuracy against the final exit, as a share, held on the
            upper 90 % bound of the paired loss, gains not counted. The bound takes windows as independent and
            is not corrected for the search: it keeps the search off the edge, and guarantees nothing.
        score: a key of `mexit_edge.exits.SCORES`.
        device: what a window costs is the estimated latency on this device; None for multiply-accumulates.
        engine: executes the stages; None for the one that stands for the device.

    Raises:
        InputError: windows of subjects that the network was trained or validated on, or that do not fit; no
            such score or device, or the bundle's latency on it is unknown.
    """
    check_fit(bundle, windows)
    refuse_seen(bundle.manifest, windows, FITTED)
    engine = engine or reference_engine()
    logits = Runtime(bundle, engine).all_logits(raw_windows(bundle, windows))
    policy = search_policy(
        bundle, logits, windows, max_drop=max_drop, score=score, device=device, engine=engine
    )
    return bundle.with_manifest(policy=policy, golden=None)


def search_policy(
    bundle: Bundle,
    logits: NDArray[np.int8],
    windows: Windows,
    *,
    max_drop: float,
    score: str,
    device: str | None,
    engine: str | None = None,
    folds: int | None = None,
) -> Policy:
    """Search thresholds on int8 logits, and note how they were found; what `calibrate` does once it has them.

    Args:
        bundle: on whose int8 grid the logits are, and what a window costs.
        logits: (n, E, classes), of every exit.
        windows: (n), of which only label, subject and name are read.
        max_drop: as for `calibrate`.
        score: as for `calibrate`.
        device: as for `calibrate`.
        engine: that made the logits; None for out-of-fold logits.
        folds: number of networks that made out-of-fold logits; None for logits of the bundle itself.

    Raises:
        InputError: no such score or device, the bundle's latency on it is unknown, or ``max_drop`` is no
            share.
    """
    manifest = bundle.manifest
    scores = [
        make_score(score, stage.outputs[0].scale, len(manifest.classes)) for stage in manifest.stages[:-1]
    ]
    columns = [one.batch(logits[:, index]) for index, one in enumerate(scores)]
    costs, unit = _exit_costs(bundle, device)
    found = search_thresholds(
        np.stack(columns, axis=1) if columns else np.empty((len(windows), 0), np.int64),
        logits.argmax(axis=2),
        windows.y,
        costs,
        max_drop,
    )
    return Policy(
        score=score,
        thresholds=tuple(one.to_float(value) for one, value in zip(scores, found.thresholds, strict=True)),
        thresholds_int=found.thresholds,
        calibration=Calibration(
            data=windows.name,
            subjects=windows.subjects,
            n_windows=len(windows),
            max_drop=max_drop,
            drop=found.drop,
            drop_upper=found.drop_upper,
            cost=unit,
            exact=found.exact,
            engine=engine,
            kind="held_out" if folds is None else "out_of_fold",
            folds=folds,
        ),
    )


def _exit_costs(bundle: Bundle, device: str | None) -> tuple[list[float], str]:
    """Return what a window costs that leaves at each exit, and in which unit."""
    if device is None:
        return [float(macs) for macs in bundle.manifest.cumulative_macs], "macs"
    estimate = estimate_bundle(bundle, device)
    latencies = [one.estimated_latency_ms for one in estimate.exits]
    known = [one.value for one in latencies if one is not None]
    if len(known) != len(latencies):
        unknown = unknown_operations(chain.from_iterable(estimate.operations))
        raise InputError(
            "`device` must be one where the latency of every operator in the bundle is known. "
            f"Received: {device!r} and {', '.join(unknown)}. Leave `device` out to search by "
            "multiply-accumulates, or replace the layers that make these operators."
        )
    return known, f"estimated_latency_ms on {estimate.device}"


def make_golden(bundle: Bundle, windows: Windows, n: int = GOLDEN_WINDOWS) -> Bundle:
    """Return the bundle with golden vectors: windows of every exit and class, as far as there are.

    Args:
        bundle: with its policy.
        windows: to choose from.
        n: number of golden windows.

    Raises:
        InputError: the windows do not fit the bundle.
    """
    check_fit(bundle, windows)
    samples = raw_windows(bundle, windows)
    reference = reference_engine()
    left_at = Runtime(bundle, reference).infer_batch(samples).exit
    # Round robin over exits, then in order of time: rare late exits are among them whenever there are any.
    turn = np.empty(len(windows), np.int64)
    for number in np.unique(left_at):
        members = np.flatnonzero(left_at == number)
        spread = np.random.default_rng(0).permutation(len(members))
        turn[members] = spread
    chosen = np.sort(np.argsort(turn, kind="stable")[:n])
    golden_windows = np.ascontiguousarray(samples[chosen])
    tensors = Runtime(bundle, reference).run_all_exits(golden_windows)
    decisions = {
        engine: Runtime(bundle, engine).infer_batch(golden_windows) for engine in available_engines()
    }
    return bundle.with_golden(
        Golden(
            windows=golden_windows,
            tensors=tensors,
            reference=reference,
            labels={engine: result.label for engine, result in decisions.items()},
            exits={engine: result.exit for engine, result in decisions.items()},
        )
    )

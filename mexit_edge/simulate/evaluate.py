"""Run a bundle over windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle, ExitQuality, PolicyQuality, Quality
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle
from mexit_edge.runtime import Runtime, reference_engine
from mexit_edge.signals import Windows
from mexit_edge.signals.windows import refuse_unlabelled
from mexit_edge.simulate.simulation import Simulation
from mexit_edge.simulate.subjects import SEEN, refuse_seen


def simulate(
    bundle: Bundle | str | Path,
    windows: Windows,
    *,
    engine: str | None = None,
    device: str | None = None,
    allow_seen: bool = False,
) -> Simulation:
    """Execute a bundle's stages on windows: once with its policy, and once to the end for comparison.

    Args:
        bundle: a bundle or the path of one; without a policy every window runs to the final exit.
        windows: of the bundle's sensor and classes.
        engine: one of `mexit_edge.runtime.ENGINES`; None for the one that stands for the device.
        device: what to estimate latency and energy for; None for no estimate.
        allow_seen: whether windows may come from subjects that the bundle was trained, validated or
            calibrated on; what comes out is then no test.

    Raises:
        InputError: the windows' classes or sensor are not the bundle's, their subjects are not new to it, or
            the engine or device is unknown.
    """
    engine = engine or reference_engine()
    runtime = Runtime(bundle, engine)
    bundle = runtime.bundle
    manifest = bundle.manifest
    check_fit(bundle, windows)
    if not allow_seen:
        refuse_seen(manifest, windows, SEEN)
    estimate = None if device is None else estimate_bundle(bundle, device)
    samples = raw_windows(bundle, windows)
    result = runtime.infer_batch(samples)
    return Simulation(
        engine=engine,
        data=windows.name,
        y=windows.y,
        subject=windows.subject,
        classes=manifest.classes,
        exits=manifest.exits,
        logits=runtime.all_logits(samples),
        scales=tuple(stage.outputs[0].scale for stage in manifest.stages),
        stage_macs=tuple(stage.macs for stage in manifest.stages),
        rule=manifest.exit_rule(),
        has_policy=manifest.policy is not None,
        exit=result.exit,
        label=result.label,
        invocations=result.invocations,
        estimate=estimate,
    )


def raw_windows(bundle: Bundle, windows: Windows) -> NDArray[Any]:
    """Return windows as the device would see them: int16 counts where the bundle takes them, else float32.

    The counts are the bundle's: its fixed-point input has their `units_per_count` folded in, whatever the
    sensor that recorded the windows counted in.
    """
    if bundle.manifest.input.fixed_point is None:
        return windows.x
    return replace(windows, sensor=bundle.manifest.sensor.to_sensor()).counts()


def check_fit(bundle: Bundle, windows: Windows) -> None:
    """Refuse windows that are not the bundle's, or not all labelled.

    Golden vectors could do without labels; one rule for whatever judges a bundle is easier to remember.

    Raises:
        InputError: none there, other classes, channels, units, length or sampling rate, or no label.
    """
    manifest = bundle.manifest
    if not len(windows):
        raise InputError("`windows` must hold at least one window. Received: none.")
    if windows.classes != manifest.classes:
        raise InputError(
            f"`windows` must have the bundle's classes ({', '.join(manifest.classes)}). "
            f"Received: {', '.join(windows.classes)}."
        )
    sensor = windows.sensor
    for argument in ("channels", "units", "window", "sampling_rate_hz"):
        expected, got = getattr(manifest.sensor, argument), getattr(sensor, argument)
        if got != expected:
            raise InputError(
                f"`windows` must have the bundle's `{argument}`, {expected}. Received: {got}. "
                "Resample or rearrange the windows, or train on such a sensor."
            )
    refuse_unlabelled(windows, "windows")


def quality_of(simulation: Simulation) -> Quality:
    """Return a simulation's figures for the manifest."""
    return Quality(
        data=simulation.data,
        subjects=tuple(int(subject) for subject in np.unique(simulation.subject)),
        n_windows=len(simulation),
        engine=simulation.engine,
        exits=tuple(
            ExitQuality(exit=name, accuracy=accuracy, balanced_accuracy=balanced)
            for name, accuracy, balanced in zip(
                simulation.exits, simulation.accuracies, simulation.balanced_accuracies, strict=True
            )
        ),
        policy=_policy_quality(simulation) if simulation.has_policy else None,
    )


def _policy_quality(simulation: Simulation) -> PolicyQuality:
    interval = simulation.drop_interval
    return PolicyQuality(
        accuracy=simulation.policy_accuracy,
        balanced_accuracy=simulation.policy_balanced_accuracy,
        drop=simulation.drop,
        drop_low=None if interval is None else interval.low,
        drop_high=None if interval is None else interval.high,
        drop_level=None if interval is None else interval.level,
        exit_shares=simulation.exit_shares,
        mean_macs=simulation.mean_macs,
    )

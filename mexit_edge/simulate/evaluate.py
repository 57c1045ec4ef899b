"""Run a bundle over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle, ExitQuality, PolicyQuality, Quality
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle
from mexit_edge.runtime import Runtime, reference_engine
from mexit_edge.signals import Windows
from mexit_edge.simulate.simulation import Simulation


def simulate(
    bundle: Bundle, windows: Windows, *, engine: str | None = None, device: str | None = None
) -> Simulation:
    """Execute a bundle's stages on windows: once with its policy, and once to the end for comparison.

    Args:
        bundle: without a policy every window runs to the final exit.
        windows: of the bundle's sensor and classes.
        engine: one of `mexit_edge.runtime.ENGINES`; None for the one that stands for the device.
        device: what to estimate latency and energy for; None for no estimate.

    Raises:
        InputError: the windows' classes or shape are not the bundle's, or the engine or device is unknown.
    """
    manifest = bundle.manifest
    check_fit(bundle, windows)
    engine = engine or reference_engine()
    samples = raw_windows(bundle, windows)
    runtime = Runtime(bundle, engine)
    result = runtime.infer_batch(samples)
    policy = manifest.policy
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
        score=policy.score if policy else "logit_margin",
        thresholds_int=policy.thresholds_int if policy else (),
        exit=result.exit,
        label=result.label,
        invocations=result.invocations,
        estimate=None if device is None else estimate_bundle(bundle, device),
    )


def raw_windows(bundle: Bundle, windows: Windows) -> NDArray[Any]:
    """Return windows as the device would see them: int16 counts where the bundle takes them, else float32."""
    return windows.x if bundle.manifest.input.fixed_point is None else windows.counts()


def check_fit(bundle: Bundle, windows: Windows) -> None:
    """Refuse windows that are not the bundle's.

    Raises:
        InputError: none there, other classes, other channels or another window.
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
    expected, got = manifest.sensor, (sensor.channels, sensor.units, sensor.window)
    if got != (expected.channels, expected.units, expected.window):
        raise InputError(
            f"`windows` must have the bundle's channels, units and length ({', '.join(expected.channels)}; "
            f"{', '.join(expected.units)}; {expected.window}). Received: {', '.join(sensor.channels)}; "
            f"{', '.join(sensor.units)}; {sensor.window}."
        )


def quality_of(simulation: Simulation) -> Quality:
    """Return a simulation's figures for the manifest."""
    interval = simulation.drop_interval
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
        policy=PolicyQuality(
            accuracy=simulation.policy_accuracy,
            balanced_accuracy=simulation.policy_balanced_accuracy,
            drop=simulation.drop,
            drop_low=interval.low,
            drop_high=interval.high,
            drop_level=interval.level,
            exit_shares=simulation.exit_shares,
            mean_macs=simulation.mean_macs,
        ),
    )

"""What several test files share: a sensor, and a bundle that needs neither TensorFlow nor an interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from mexit_edge.bundle import (
    Bundle,
    Golden,
    InputSpec,
    Manifest,
    NormalisationSpec,
    Policy,
    SensorSpec,
    StageSpec,
    TensorSpec,
)
from mexit_edge.files import sha256
from mexit_edge.signals import Sensor

# How long an example takes tells of the machine's load, not of the code.
settings.register_profile(
    "patient", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture
def phone() -> Sensor:
    """Accelerometer and gyroscope of one phone, and a thermometer that stands alone."""
    return Sensor(
        channels=("acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y", "gyr_z", "temperature"),
        units=("g",) * 3 + ("rad/s",) * 3 + ("degC",),
        sampling_rate_hz=50.0,
        window=32,
        hop=16,
        triads=((0, 1, 2), (3, 4, 5)),
        rigid_bodies=((0, 1),),
        units_per_count=(0.001,) * 3 + (0.0005,) * 3 + (0.01,),
    )


@pytest.fixture
def command_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that a command runs in, and a narrow terminal: tables are as wide as it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEXIT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def tiny_bundle() -> Bundle:
    """Three stages of arbitrary bytes, a policy and golden vectors: the bundle room opens no model."""
    contents = tuple(f"stage {number}".encode() * 20 for number in (1, 2, 3))
    tensors = {
        name: TensorSpec(name=name, shape=shape, scale=0.1, zero_point=3)
        for name, shape in {
            "window": (1, 16, 2),
            "boundary_1": (1, 8, 4),
            "boundary_2": (1, 4, 4),
            "logits_1": (1, 4),
            "logits_2": (1, 4),
            "logits_3": (1, 4),
        }.items()
    }
    borders = (
        (("window",), ("logits_1", "boundary_1")),
        (("boundary_1",), ("logits_2", "boundary_2")),
        (("boundary_2", "boundary_1"), ("logits_3",)),
    )
    stages = tuple(
        StageSpec(
            file=f"stage_{number:02d}.tflite",
            sha256=sha256(content),
            flash_bytes=len(content),
            exit=f"exit_{number:02d}",
            inputs=tuple(tensors[name] for name in inputs),
            outputs=tuple(tensors[name] for name in outputs),
            ops={"CONV_2D": number},
            macs=1000 * number,
            live_macs=900 * number,
            arena_bytes=None if number == 2 else 2048,
        )
        for number, (content, (inputs, outputs)) in enumerate(zip(contents, borders, strict=True), start=1)
    )
    manifest = Manifest(
        name="tiny",
        sensor=SensorSpec(
            channels=("left", "right"), units=("g", "g"), sampling_rate_hz=50.0, window=16, hop=8
        ),
        normalisation=NormalisationSpec(offset=(0.0, 0.0), scale=(1.0, 2.0)),
        classes=("walk", "sit", "stand", "lie"),
        input=InputSpec(scale=0.05, zero_point=-1),
        stages=stages,
        policy=Policy(score="logit_margin", thresholds=(0.5, 0.3), thresholds_int=(5, 3)),
    )
    rng = np.random.default_rng(0)
    golden = Golden(
        windows=rng.integers(-500, 500, (5, 16, 2)).astype(np.int16),
        tensors={"logits_1": rng.integers(-128, 128, (5, 1, 4)).astype(np.int8)},
        reference="tflm",
        labels={"tflm": np.arange(5) % 4},
        exits={"tflm": np.arange(5) % 3 + 1},
    )
    return Bundle(manifest, contents).with_golden(golden)

"""The committed reference bundle, on the base install alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mexit_edge.bundle import Bundle
from mexit_edge.cli.settings import EPOCHS
from mexit_edge.runtime import ENGINES, Runtime, available_engines, verify_golden

REFERENCE = Path(__file__).parent.parent / "tflite_models" / "reference.mexit"
MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(REFERENCE)


def test_is_small_and_carries_its_card():
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < MAX_BYTES
    assert "## Quality" in (REFERENCE / "model_card.md").read_text("utf-8")


def test_was_made_with_the_default_settings(bundle):
    training = bundle.manifest.training
    assert (training.data, training.backbone, training.regime, training.seed) == ("hapt", "dscnn", "joint", 0)
    assert training.epochs == EPOCHS


def test_its_four_sets_of_subjects_are_disjoint(bundle):
    manifest = bundle.manifest
    sets = [
        manifest.training.train_subjects,
        manifest.training.validation_subjects,
        manifest.policy.calibration.subjects,
        manifest.quality.subjects,
    ]
    everyone = [subject for subjects in sets for subject in subjects]
    assert len(everyone) == len(set(everyone)) == 30


@pytest.mark.parametrize("engine", ENGINES)
def test_decides_as_its_golden_vectors_say(bundle, engine):
    if engine not in available_engines():
        pytest.skip(f"{engine} has no wheel here")
    rows, wrong = verify_golden(bundle, engine)
    assert wrong == 0
    if engine == bundle.golden.reference:
        assert all(row.differing_elements == 0 for row in rows)


def test_golden_windows_leave_at_every_exit_that_the_policy_uses(bundle):
    used = {
        number for number, share in enumerate(bundle.manifest.quality.policy.exit_shares, 1) if share > 0.01
    }
    assert used <= set(bundle.golden.exits[bundle.golden.reference].tolist())


def test_counts_and_their_float_windows_give_the_same_decisions(bundle):
    counts = bundle.golden.windows
    assert counts.dtype == np.int16
    runtime = Runtime(bundle)
    units = np.asarray(bundle.manifest.sensor.units_per_count)
    by_counts = runtime.infer_batch(counts)
    by_floats = runtime.infer_batch(counts * units)
    # The two ways in round alike but for ties, so that a decision on the edge of a threshold may move.
    assert np.mean(by_counts.label == by_floats.label) > 0.95

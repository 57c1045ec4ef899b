"""One run of a sweep: whose windows it sees, what it costs, and what its record holds."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fixtures_bench import save_windows

from mexit_edge.benchmark.run import perform, perturbed, subject_sets, with_fewer
from mexit_edge.benchmark.sweep import Run, make_sweep
from mexit_edge.compress import Quantization
from mexit_edge.data import HeldOutTest, Split
from mexit_edge.data import catalogue as catalogue_room
from mexit_edge.errors import InputError
from mexit_edge.regimes import MultiExitModel, Recipe
from mexit_edge.regimes.equal_cost import epochs_of_equal_cost, macs_per_window
from mexit_edge.regimes.phases import epochs_per_phase
from mexit_edge.signals import (
    ChannelScale,
    Jitter,
    Mirror,
    Normalisation,
    Perturbation,
    Rotation,
    Sensor,
    Speed,
    Windows,
)

pytestmark = pytest.mark.train

PHONE = Sensor(
    channels=("acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z"),
    units=("g",) * 3 + ("rad/s",) * 3,
    sampling_rate_hz=50.0,
    window=32,
    hop=16,
    triads=((0, 1, 2), (3, 4, 5)),
    rigid_bodies=((0, 1),),
)
OFFICIAL = (1, 4)


@pytest.fixture
def people() -> Windows:
    """Return windows of ten people, of whom two are for the test."""
    rng = np.random.default_rng(0)
    y, subject = np.arange(300) % 3, np.arange(300) // 30
    wave = np.sin(np.arange(32) * (1 + y[:, None]) / 3)[..., None]
    return catalogue_room.LoadedWindows(
        x=(rng.normal(scale=0.3, size=(300, 32, 6)) + wave).astype(np.float32),
        y=y,
        subject=subject,
        sensor=PHONE,
        classes=("a", "b", "c"),
        name="hapt",
        official_test_subjects=OFFICIAL,
    )


def runs_of(regime: str = "joint", seed: int = 0, data: str = "hapt", **protocol: object) -> tuple[Run, ...]:
    facts = {
        "data": [data],
        "backbones": [{"name": "cnn", "preset": "tiny"}],
        "regimes": [{"name": regime}],
        "seeds": [seed],
        "protocol": {"epochs": 2, "engine": "litert-builtin", **protocol},
    }
    return make_sweep(facts, "the test").runs()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cross_fit", [None, 3])
def test_no_subject_stands_on_two_sides_and_nobody_of_the_test_in_a_choice(
    people: Windows, seed: int, cross_fit: int | None
) -> None:
    (test,) = runs_of(seed=seed, cross_fit=cross_fit)
    sets = subject_sets(test, people)
    assert isinstance(sets, Split if cross_fit is None else HeldOutTest)
    assert sets.test.subjects == OFFICIAL
    judged: list[int] = []
    for fold in runs_of(seed=seed, cross_fit=cross_fit, judged_on="out_of_fold", folds=3):
        sets = subject_sets(fold, people)
        together = [subject for subjects in sets.subjects.values() for subject in subjects]
        assert len(together) == len(set(together))
        assert not set(together) & set(OFFICIAL)
        judged += sets.test.subjects
    # Out of fold everybody else is judged once.
    assert sorted(judged) == sorted(set(people.subjects) - set(OFFICIAL))


def test_out_of_fold_without_official_subjects_puts_the_same_ones_away_for_every_seed(
    people: Windows,
) -> None:
    drawn = replace(people, official_test_subjects=None, name="watch")
    put_away = set()
    for seed in range(3):
        judged: set[int] = set()
        for fold in runs_of(
            data="watch", seed=seed, judged_on="out_of_fold", folds=2, cross_fit=2, split_seed=4
        ):
            sets = subject_sets(fold, drawn)
            judged |= {subject for subjects in sets.subjects.values() for subject in subjects}
        (test,) = runs_of(data="watch", seed=seed, split_seed=4)
        assert not judged & set(subject_sets(test, drawn).test.subjects)
        put_away.add(subject_sets(test, drawn).test.subjects)
    assert len(put_away) == 1


def test_fewer_people_to_train_on_change_nobody_else(people: Windows) -> None:
    (all_of_them,) = runs_of()
    (few,) = runs_of(training_subjects=2)
    whole = subject_sets(all_of_them, people)
    part = with_fewer(subject_sets(few, people), few)
    assert with_fewer(whole, all_of_them) is whole
    assert len(part.train.subjects) == 2
    assert set(part.train.subjects) < set(whole.train.subjects)
    assert part.subjects["calibration"] == whole.subjects["calibration"]
    with pytest.raises(InputError, match=r"`training_subjects` must be at most what the split leaves"):
        with_fewer(whole, runs_of(training_subjects=9)[0])


def test_perturbed_windows_are_the_same_for_every_network(people: Windows) -> None:
    normalisation = Normalisation.fit(people)
    assert perturbed(people, normalisation, 0.0, 0) is people
    mild, again, other, strong = (
        perturbed(people, normalisation, severity, seed).x
        for severity, seed in ((1.0, 0), (1.0, 0), (1.0, 1), (5.0, 0))
    )
    np.testing.assert_array_equal(mild, again)
    assert not np.array_equal(mild, other)
    assert np.abs(strong - people.x).mean() > 2 * np.abs(mild - people.x).mean()


# Tracing takes seconds: one regime per way of costing something else than joint.
@pytest.mark.parametrize(("regime", "epochs"), [("consistency", 6), ("disjoint", None)])
def test_epochs_of_equal_cost_cost_the_same_to_the_nearest_epoch(
    people: Windows, regime: str, epochs: int | None
) -> None:
    recipe = Recipe(backbone="cnn", preset="tiny", regime=regime, epochs=12, batch_size=32)
    found = epochs_of_equal_cost(recipe, people)
    if epochs is not None:
        assert found == epochs
        return
    assert found > 12
    model, joint = recipe.model(people), replace(recipe, regime="joint").model(people)
    (wanted,) = macs_per_window(joint, people, recipe.batch_size)
    per_phase = macs_per_window(model, people, recipe.batch_size)
    lengths = epochs_per_phase(model.phases, found)
    cost = sum(length * macs for length, macs in zip(lengths, per_phase, strict=True))
    assert abs(cost - 12 * wanted) <= max(per_phase) / 2


@pytest.mark.slow
def test_a_run_leaves_what_every_exit_says(people: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mexit_edge.benchmark.run.load", lambda name: people)
    # Cross-fitted: the trainings of `test_bench.py` have four sets of subjects.
    scales = []

    def judged(windows: Windows, normalisation: Normalisation, severity: float, seed: int) -> Windows:
        scales.append(normalisation.scale)
        return perturbed(windows, normalisation, severity, seed)

    monkeypatch.setattr("mexit_edge.benchmark.run.perturbed", judged)
    chains = []

    def made(recipe: Recipe, windows: Windows, perturbations: tuple[Perturbation, ...]) -> MultiExitModel:
        chains.append([type(one) for one in perturbations])
        return as_it_is(recipe, windows, perturbations)

    as_it_is = Recipe.model
    monkeypatch.setattr(Recipe, "model", made)
    (run,) = runs_of(cross_fit=2, severities=[0, 3], qat_share=0.5, training_subjects=6, mirror_axis="y")
    record = perform(run)
    # Two folds, and the network on all of them.
    assert chains == [[Mirror, Rotation, ChannelScale, Speed, Jitter]] * 3
    assert record.subjects["judged"] == OFFICIAL
    assert len(record.subjects["training"]) == 6
    # However few are trained on, the judged windows are perturbed by the scale of all that could have been.
    others = people.of_subjects(set(people.subjects) - set(OFFICIAL))
    np.testing.assert_array_equal(scales, [Normalisation.fit(others).scale] * 2)
    assert {"ai-edge-litert"} | ({"tflite-micro"} if find_spec("tflite_micro") else set()) <= set(
        record.versions
    )
    n, exits = len(record.y), len(record.exits)
    assert record.float_logits.shape == (n, exits, 3)
    assert record.int8_logits.shape == (2, n, exits, 3)
    assert record.int8_logits.dtype == record.calibration_logits.dtype == np.int8
    # The int8 stages decide as the float network does, but for windows near the border.
    agreement = np.mean(record.int8_logits[0].argmax(axis=2) == record.float_logits.argmax(axis=2))
    assert agreement > 0.9
    assert np.any(record.int8_logits[0] != record.int8_logits[1])
    assert list(record.exit_macs) == sorted(record.exit_macs)
    assert record.exit_macs[-2] < record.plain_macs < record.exit_macs[-1]
    # Two folds, the network on all of them, and its fine-tuning.
    assert len(record.training_cost) == 2 + 1 + 1
    assert record.training_cost[-1]["epochs"] == 1
    # Every training window was judged by a network that never saw its subject.
    assert len(record.calibration_y) == len(people.of_subjects(record.subjects["training"]))


def test_the_limit_of_inputs_reaches_the_quantization(
    people: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mexit_edge.benchmark.run.load", lambda name: people)

    class ReachedError(Exception):
        pass

    def export(model: MultiExitModel, windows: Windows, *, quantization: Quantization, **_: object) -> None:
        # With neither strength nor mirror nothing is perturbed.
        assert model.perturbations == ()
        assert quantization == Quantization(input_limit=3.0)
        raise ReachedError

    monkeypatch.setattr("mexit_edge.benchmark.run.export", export)
    (run,) = runs_of(epochs=1, input_limit=3.0, perturbation_strength=0.0)
    with pytest.raises(ReachedError):
        perform(run)


def test_windows_that_changed_since_the_sweep_began_are_refused(tmp_path: Path) -> None:
    file = save_windows(tmp_path / "mine.npz")
    (run,) = make_sweep(
        {"data": [str(file)], "regimes": [{"name": "joint"}], "seeds": [0]}, "the test"
    ).runs()
    save_windows(file, n_subjects=9)
    with pytest.raises(InputError, match="must stay as it was when the sweep began"):
        perform(run)

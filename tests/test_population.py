"""What measured systems say of others: on systems drawn from the model's own prior, whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mexit_edge.estimate.latency.population import (
    GROUPS,
    Measurement,
    Population,
    Prior,
    Spreads,
    System,
    choose_spreads,
)
from mexit_edge.estimate.latency.rates import QUANTILE
from mexit_edge.estimate.latency.terms import TERMS

# Of every term, about as much as small int8 networks of four architectures ask for.
MODELS = {
    "separable": np.array([3e5, 2e6, 3e5, 1e3, 3e4, 4e3, 13, 1]),
    "residual": np.array([1.2e7, 3e5, 0, 640, 1e5, 5e4, 16, 1]),
    "mobile": np.array([5e5, 6e6, 8e5, 512, 2e5, 1e4, 31, 1]),
    "dense": np.array([0, 0, 0, 2.6e5, 2e3, 0, 10, 1]),
}
NORMAL = 1.645  # 90 % of a normal distribution lie within so many deviations.
SPREADS = Spreads()


def systems() -> list[System]:
    """Three cores with two boards each, and two libraries on every board, one of them in two versions."""
    found = []
    for core in ("M4", "M7", "M33"):
        for board in (f"{core} a", f"{core} b"):
            for family, version in (("kernels", "1"), ("kernels", "2"), ("others", "1")):
                found.append(System(board, core, family, version, f"{board} {family} {version}"))
    return found


def draw(rng: np.random.Generator, drawn: list[System]) -> list[Measurement]:
    """Draw cycles of every model on every system as the population believes them to come about."""
    prior = Prior()
    parts: dict[tuple[str, ...], np.ndarray] = {}

    def part(*label: str, size: int | None = None) -> np.ndarray:
        return parts.setdefault(label, rng.normal(size=size))

    made = []
    for system in drawn:
        labels = list(zip(GROUPS, system.groups(), strict=True))
        theta = prior.mean + sum(
            speed * part("speed", *label)
            + preference * part("preference", *label, size=len(TERMS)) * prior.vagueness
            for label, speed, preference in zip(labels, SPREADS.speed, SPREADS.preference, strict=True)
        )
        for model, amounts in MODELS.items():
            error = sum(
                deviation * part("error", model, *label)
                for label, deviation in zip(labels, SPREADS.error, strict=True)
            )
            made.append(Measurement(system, model, amounts, float(np.exp(theta) @ amounts * np.exp(error))))
    return made


@pytest.fixture(scope="module")
def measured() -> list[Measurement]:
    return draw(np.random.default_rng(1), systems())


def others(measured: list[Measurement], **known: str) -> np.ndarray:
    """Return the indices of the measurements of which not all of this holds, of their system."""
    return np.flatnonzero(
        [any(getattr(one.system, name) != value for name, value in known.items()) for one in measured]
    )


def log_cycles(measured: list[Measurement]) -> np.ndarray:
    return np.log([one.cycles for one in measured])


# --- Predictions --------------------------------------------------------------------------------------------


def test_intervals_of_hidden_rows_cover_what_they_say():
    """A board hidden, a model on one system, one everywhere, and everything: 90 % of each, in 40 draws."""
    rng = np.random.default_rng(0)
    inside: dict[str, list[bool]] = {"board": [], "row": [], "model": [], "everything": []}
    errors: dict[str, list[float]] = {name: [] for name in inside}
    for _ in range(40):
        made = draw(rng, systems())
        row = int(rng.integers(len(made)))
        hidden = {
            "board": [one.system.board == made[row].system.board for one in made],
            "row": [index == row for index in range(len(made))],
            "model": [one.model == made[row].model for one in made],
            "everything": [True] * len(made),
        }
        population, truth = Population(made, SPREADS), log_cycles(made)
        for name, is_hidden in hidden.items():
            mean, deviation = population.predict(np.flatnonzero(np.logical_not(is_hidden)))
            off = (mean - truth)[is_hidden]
            inside[name] += (np.abs(off) < NORMAL * deviation[is_hidden]).tolist()
            errors[name] += np.abs(off).tolist()
    # Rows of one draw err together, and there are 40 draws.
    for name, low, high in (("board", 0.85, 0.95), ("model", 0.83, 0.96), ("everything", 0.8, 0.97)):
        assert low < np.mean(inside[name]) < high
    assert np.mean(inside["row"]) > 0.8
    mean = {name: np.mean(off) for name, off in errors.items()}
    assert mean["row"] < 0.03
    assert max(mean["board"], mean["model"]) < 0.4 * mean["everything"]


def test_what_was_measured_is_reproduced(measured):
    everything = np.arange(len(measured))
    population = Population(measured)
    mean, deviation = population.predict(everything)
    np.testing.assert_allclose(mean, log_cycles(measured), atol=1e-3)
    assert deviation.max() < 2e-3
    # Eight rates cannot hold every model's own error, which they may miss by.
    missed = [
        np.log(population.rates(one.system).cycles(one.amounts).value / one.cycles) for one in measured[:4]
    ]
    assert np.abs(missed).max() < 2.5 * SPREADS.model_error


def test_other_boards_predict_one_that_was_never_measured(measured):
    """Its truth lies in the intervals of the rates that the other boards leave it."""
    known = others(measured, board="M4 b")
    population = Population([measured[index] for index in known])
    hidden = [one for one in measured if one.system.board == "M4 b"]
    found = [population.rates(one.system).cycles(one.amounts) for one in hidden]
    assert all(one.low < truth.cycles < one.high for one, truth in zip(found, hidden, strict=True))
    # A hidden row is not looked at: leaving it out of the population says the same.
    same = Population(measured).rates(hidden[0].system, known).cycles(hidden[0].amounts)
    assert same.value == pytest.approx(found[0].value, rel=1e-3)


def test_predictions_and_rates_agree(measured):
    """Both are the same posterior: one through the model's row, one through eight rates."""
    known = others(measured, board="M4 b")
    population = Population(measured)
    mean, deviation = population.predict(known)
    for index in sorted(set(range(len(measured))) - set(known.tolist())):
        one = measured[index]
        found = population.rates(one.system, known).cycles(one.amounts)
        assert np.log(found.value) == pytest.approx(mean[index], abs=0.2)
        width = np.log(found.high / found.value) / QUANTILE
        # Errors of a model that was measured elsewhere are partly known; rates hold for any model.
        assert 0.9 * deviation[index] < width < 1.5 * deviation[index]


# --- Who knows how much -------------------------------------------------------------------------------------


def test_the_less_is_shared_the_wider(measured):
    population = Population(measured)
    own = measured[0].system
    ladder = [
        own,
        replace(own, name="another set-up"),
        replace(own, board="new", name="new"),
        replace(own, board="new", core="new", name="new"),
        System("new", "new", "new", "1", "new"),
    ]
    for amounts in MODELS.values():
        widths = [
            found.high / found.value
            for found in (population.rates(system).cycles(amounts) for system in ladder)
        ]
        assert widths == sorted(widths)
        assert len(set(np.round(widths, 4))) == len(ladder)


def test_every_measurement_of_a_board_narrows_it(measured):
    elsewhere = others(measured, board="M4 b").tolist()
    of_board = [index for index in range(len(measured)) if index not in elsewhere]
    population = Population(measured)
    one = measured[of_board[0]]
    widths = [
        (lambda found: found.high / found.value)(
            population.rates(one.system, [*elsewhere, *of_board[:n]]).cycles(one.amounts)
        )
        for n in range(5)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 1.2 * widths[4]


def test_no_measurement_leaves_the_prior(measured):
    rates = Population(measured).rates(measured[0].system, [])
    assert rates.mean == pytest.approx(Prior().mean)
    speed = np.square(SPREADS.speed).sum()
    preferences = np.square(Prior().vagueness) * np.square(SPREADS.preference).sum()
    assert rates.covariance == pytest.approx(speed + np.diag(preferences))
    assert rates.model_error == pytest.approx(np.sqrt(np.square(SPREADS.error).sum()))


# --- One system, and no order -------------------------------------------------------------------------------


def test_rates_updated_by_measurements_are_the_populations(measured):
    """What `mexit device fit` does on top of a shipped figure is what the population would have said."""
    system = measured[0].system
    own = [one for one in measured if one.system == system]
    population = Population(own)
    before = population.rates(system, [])
    for n in range(1, len(own) + 1):
        known = own[:n]
        updated = before.updated([one.amounts for one in known], [one.cycles for one in known])
        found = population.rates(system, range(n))
        np.testing.assert_allclose(updated.mean, found.mean, atol=2e-3)
        np.testing.assert_allclose(updated.covariance, found.covariance, atol=2e-3)
        assert updated.model_error == found.model_error


def test_measurements_in_another_order_say_the_same(measured):
    order = np.random.default_rng(2).permutation(len(measured))
    system = System("new", "M4", "kernels", "2", "new")
    one = Population(measured).rates(system)
    other = Population([measured[index] for index in order]).rates(system)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-6)


def test_a_faster_clock_for_everything_is_a_faster_system_only(measured):
    """Cycles of a system times a factor move its rates by it, as far as systems may differ in speed."""
    system = measured[0].system
    doubled = [replace(one, cycles=2 * one.cycles) if one.system == system else one for one in measured]
    before, after = Population(measured).rates(system), Population(doubled).rates(system)
    for amounts in MODELS.values():
        ratio = after.cycles(amounts).value / before.cycles(amounts).value
        assert ratio == pytest.approx(2, rel=0.1)


# --- Spreads ------------------------------------------------------------------------------------------------


def test_chosen_spreads_are_likelier_and_the_same_every_time(measured):
    pytest.importorskip("scipy")
    some = measured[:24]
    known = np.arange(len(some))
    start = Population(some, Spreads(speed=(0.5, 0.6, 0.02, 0.6, 0.3, 0.02, 0.2)))
    chosen = choose_spreads(start, known, steps=3)
    assert chosen == choose_spreads(start, known, steps=3)
    likelier = start.with_spreads(chosen)
    assert likelier.log_likelihood(known) > start.log_likelihood(known) + 1
    # One population cannot tell how much populations vary, and what is 0 stays 0.
    assert chosen.speed[0] == start.spreads.speed[0]
    assert chosen.preference[-1] == 0
    assert min(*chosen.speed, *chosen.preference, *chosen.error) >= 0
    assert likelier.measurements == start.measurements

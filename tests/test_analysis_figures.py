"""What the figures of the analyses show: the numbers they were given, nothing for what is not defined."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from fixtures_networks import TRAIN_REASON

if any(find_spec(module) is None for module in ("tensorflow", "keras", "sklearn")):
    pytest.skip(TRAIN_REASON, allow_module_level=True)
pytest.importorskip("matplotlib", reason="matplotlib is not installed (the [report] extra)")

from mexit_edge import report
from mexit_edge.analysis import (
    Channel,
    GradientDominance,
    InformationFlow,
    Line,
    LossLandscape,
    NumericalRank,
    Plane,
    ProbeBound,
    Repeated,
)
from mexit_edge.errors import InputError
from mexit_edge.exits import Interval

EXITS = ("exit_01", "exit_02")


def gradients(first: float, groups: tuple[str, ...] = ("block_01", "head_02")) -> GradientDominance:
    share = np.asarray([[first, 1 - first], [np.nan, np.nan]])
    conflict = np.full((2, 2, 2), np.nan)
    conflict[0] = [[1, -0.25], [-0.25, 1]]
    n = np.full((2, 2), 20)
    return GradientDominance(
        groups, EXITS, np.ones(2), share, share, conflict,
        0.1 * share, share, conflict, n, n, np.full((2, 2, 2), 20), 20, 4,
    )  # fmt: skip


def rank(rank: int, largest: float) -> NumericalRank:
    values = np.asarray([largest, largest / 2, largest / 8])
    return NumericalRank(
        EXITS, np.asarray([rank, 1]), np.asarray([rank / 4, 0.25]), np.asarray([2.0, 1.0]),
        (values, np.asarray([2.0, 1.0])), 9, np.asarray([4, 4]), np.asarray([4, 4]), 0.01,
    )  # fmt: skip


def information() -> InformationFlow:
    def bounds(*values: float) -> tuple[ProbeBound, ...]:
        return tuple(ProbeBound("linear", one, Interval(one - 0.1, one + 0.2, 0.95), 0.5) for one in values)

    return InformationFlow(
        EXITS, 1.5, bounds(0.5, 1.0), bounds(0.6, 1.1),
        (Repeated(2.0, 0.1), Repeated(1.0, 0.2)),
        (Channel(2.5, Repeated(2.3, 0.0)), Channel(1.4, Repeated(1.2, 0.0))),
        (Repeated(0.01, 0.1), Repeated(-0.02, 0.1)),
        0.3, 2, (1, 2), 10, 10, 10,
    )  # fmt: skip


def lines_of(ax: Any) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in ax.lines}


def cells_of(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def ends_of(ax: Any) -> list[list[float]]:
    """The lower and upper ends of all vertical lines."""
    return [segment[:, 1].tolist() for one in ax.collections for segment in one.get_segments()]


def test_gradient_shares() -> None:
    ax = report.plot_gradient_shares(gradients(0.25))
    np.testing.assert_allclose(ax.collections[0].get_array()[0], [0.25, 0.75])
    assert ax.collections[0].get_array().mask[1].all()
    assert cells_of(ax) == ["25", "75", "–", "–"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["block_01", "head_02"]


def test_gradient_conflicts() -> None:
    ax = report.plot_gradient_conflicts(gradients(0.25))
    # One pair, and only the group that both exits reach.
    np.testing.assert_array_equal(ax.collections[0].get_array(), [[-0.25]])
    assert cells_of(ax) == ["-0.25"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["block_01"]


def test_shares_over_training() -> None:
    # A network's own order of its groups counts.
    other = gradients(np.nan, ("head_02", "block_01"))
    other.share[1] = [0.75, 0.25]
    found = [gradients(0.25), other]
    ax = report.plot_shares_over_training(found, ["p", "q"], "block_01")
    np.testing.assert_allclose(lines_of(ax)["exit_01"], [[0, 25], [1, 75]])
    np.testing.assert_allclose(lines_of(ax)["exit_02"], [[0, 75], [1, 25]])
    with pytest.raises(InputError, match=r"`group` must be one of: .*Received: 'block_1'.*block_01"):
        report.plot_shares_over_training(found, ["p", "q"], "block_1")


def test_rank() -> None:
    ax = report.plot_rank([rank(2, 8.0), rank(0, 8.0)], ["p", "q"])
    drawn = [np.asarray(line.get_ydata()).tolist() for line in ax.lines]
    # Of four at most; a rank of 0 is drawn as 0.
    assert drawn == [[50, 25], [50, 25], [0, 25], [50, 25]]


def test_singular_values() -> None:
    lines = lines_of(report.plot_singular_values(rank(2, 8.0)))
    np.testing.assert_allclose(lines["exit_01"], [[1, 1], [2, 0.5], [3, 0.125]])
    # The threshold is that of the result.
    assert any(np.all(data[:, 1] == 0.01) for data in lines.values())
    assert len(lines_of(report.plot_singular_values(rank(0, 0.0)))["exit_01: constant"]) == 0


def test_class_information() -> None:
    ax = report.plot_class_information([information()], ["p"])
    np.testing.assert_allclose(lines_of(ax)["linear probe"][:, 1], [0.5, 1.0])
    np.testing.assert_allclose(lines_of(ax)["MLP probe"][:, 1], [0.6, 1.1])
    np.testing.assert_allclose(ends_of(ax), [[0.4, 0.7], [0.9, 1.2], [0.5, 0.8], [1.0, 1.3]])
    assert any(np.all(data[:, 1] == 1.5) for data in lines_of(ax).values())


def test_window_information() -> None:
    ax = report.plot_window_information([information()], ["p"])
    lines = lines_of(ax)
    np.testing.assert_allclose(lines["p"], [[0, 2.0], [1, 1.0]])
    np.testing.assert_allclose(lines["channel, known"][:, 1], [2.5, 1.4])
    np.testing.assert_allclose(lines["channel, estimated"][:, 1], [2.3, 1.2])
    np.testing.assert_allclose(ends_of(ax)[:2], [[1.9, 2.1], [0.8, 1.2]])
    assert any(np.allclose(data[:, 1], [0.01, -0.02]) for data in lines.values())


def test_line() -> None:
    loss = np.asarray([[1.0, 3.0], [4.0, 4.0], [2.0, 2.0]])
    line = Line(("p", "q"), np.asarray([0, 0.5, 1]), loss, 0 * loss, 1.0)
    ax = report.plot_line(line, EXITS)
    np.testing.assert_allclose(lines_of(ax)["exit_02"][:, 1], [3, 4, 2])
    np.testing.assert_allclose(lines_of(ax)["mean of exits"][:, 1], [2, 4, 2])
    # The barrier is drawn where it is, from the chord to the loss.
    assert ends_of(ax) == [[2, 4]]
    assert ax.get_title() == "barrier 2.000 nats"


def test_plane() -> None:
    loss = np.geomspace(0.1, 4, 9)[:, None].reshape(3, 3, 1)
    places = np.asarray([[0, 0], [1, 0], [0.5, 1.0]])
    ax = report.plot_plane(Plane(("p", "q", "r"), np.arange(3.0), np.arange(3.0), loss, 0 * loss, places))
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), places)
    assert {"p", "q", "r"} <= set(cells_of(ax))
    filled = ax.collections[0]
    np.testing.assert_allclose(np.exp(filled.levels[[0, -1]]), [0.1, 4])


@pytest.mark.parametrize(("exit_", "middle"), [("exit_02", 2.0), (None, 1.5)])
def test_landscape(exit_: str | None, middle: float) -> None:
    loss = np.stack([np.full((3, 3), 1.0), np.full((3, 3), 2.0)], axis=-1)
    # The same everywhere: nothing to draw contours of, and no warning.
    found = LossLandscape(EXITS, np.asarray([-1.0, 0, 1]), loss, 5, 0)
    ax = report.plot_landscape(found, exit_)
    assert ax.get_title() == f"{exit_ or 'mean of exits'}: {middle:.3f} nats at +"
    steep = loss.copy()
    steep[0] *= 3
    steep[2, 2] = np.inf
    ax = report.plot_landscape(LossLandscape(EXITS, found.steps, steep, 5, 0), exit_)
    np.testing.assert_allclose(np.exp(ax.collections[0].levels[[0, -1]]), [middle, 3 * middle])
    with pytest.raises(InputError, match=r"`exit_` must be one of: exit_01, exit_02\. Received: 'exit_2'"):
        report.plot_landscape(found, "exit_2")


def test_a_landscape_without_a_finite_loss_says_so() -> None:
    found = LossLandscape(EXITS, np.asarray([-1.0, 0, 1]), np.full((3, 3, 2), np.inf), 5, 0)
    ax = report.plot_landscape(found)
    assert not ax.collections
    assert "no finite loss" in cells_of(ax)
    assert ax.get_title() == "mean of exits: inf nats at +"

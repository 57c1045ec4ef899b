"""The sections of the page of the analyses: figures, tables and a sentence for each analysis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mexit_edge.report import analysis_figures as figures
from mexit_edge.report import loss_figures, words
from mexit_edge.report.provenance import FEW_SUBJECTS
from mexit_edge.report.tables import Table
from mexit_edge.report.theme import Picture, picture

if TYPE_CHECKING:
    from mexit_edge.analysis import (
        Connectivity,
        GradientDominance,
        InformationFlow,
        LossLandscape,
        NumericalRank,
        ProbeBound,
        Repeated,
    )

# Heat maps of so many networks are drawn, the first and the last among them; the table has all.
MOST_HEAT_MAPS = 3


@dataclass(frozen=True, eq=False)
class Analyses:
    """What was found; None or empty where it was not asked for.

    Args:
        names: of the networks.
        gradients: per network.
        connectivity: between two or three networks.
        landscape: around the last network.
        rank: per network.
        information: per network.
    """

    names: tuple[str, ...]
    gradients: tuple[GradientDominance, ...] = ()
    connectivity: Connectivity | None = None
    landscape: LossLandscape | None = None
    rank: tuple[NumericalRank, ...] = ()
    information: tuple[InformationFlow, ...] = ()


@dataclass(frozen=True)
class Section:
    """One analysis on the page.

    Args:
        anchor: of the section.
        heading: of the section.
        lead: what it shows, before the figures.
        pictures: its figures.
        tables: its tables.
    """

    anchor: str
    heading: str
    lead: str
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]


def analysis_sections(found: Analyses) -> Iterator[Section]:
    """Yield the sections of the analyses that there are, in order."""
    for make in (_gradients, _connectivity, _landscape, _rank, _information):
        section = make(found)
        if section is not None:
            yield section


def _gradients(found: Analyses) -> Section | None:
    if not found.gradients:
        return None
    from mexit_edge.analysis.gradients import MIN_BATCHES

    last = found.gradients[-1]
    weights = ", ".join(f"{one:.3g}" for one in last.exit_weights)
    lead = (
        f"Which exit moves which part of the network: means over {last.n_batches} batches of "
        f"{last.batch_size} windows. Exit weights of {found.names[-1]}: {weights}."
    )
    if last.n_batches < MIN_BATCHES:
        lead += f" There are too few windows for {MIN_BATCHES} batches: the means are rough."
    pictures = tuple(_gradient_pictures(found))
    return Section("gradients", "Gradient dominance", lead, pictures, (_gradient_table(found),))


def _gradient_pictures(found: Analyses) -> Iterator[Picture]:
    drawn = _some(len(found.names))
    for place in drawn:
        yield picture(
            partial(figures.plot_gradient_shares, found.gradients[place]),
            alt=f"Share of every exit in the gradient of every block and head of {found.names[place]}.",
            caption=found.names[place],
        )
    last = found.gradients[-1]
    if len(last.exits) > 1:
        for place in drawn:
            yield picture(
                partial(figures.plot_gradient_conflicts, found.gradients[place]),
                alt=f"Cosine between the gradients of each two exits of {found.names[place]}.",
                caption=f"{found.names[place]}. Below 0 two exits pull against each other.",
            )
    if len(found.names) > 1:
        for group in _shared(last):
            yield picture(
                partial(figures.plot_shares_over_training, found.gradients, found.names, group),
                alt=f"Share of every exit in the gradient of {group} over the networks.",
                caption="Bands: standard deviation over batches.",
            )


def _gradient_table(found: Analyses) -> Table:
    several, last = len(found.names) > 1, found.gradients[-1]
    shared = _shared(last) if several else last.groups
    return Table(
        caption=(
            "Share: ||g_k||² over the sum of all exits', ± standard deviation over batches. Projection: how "
            "much of the step along the summed gradient is exit k's; the exits' sum to 1, below 0 an exit is "
            "overruled."
        ),
        columns=(
            "group",
            *(f"{exit_} share (%)" for exit_ in last.exits),
            *(f"{exit_} projection" for exit_ in last.exits),
        ),
        rows=tuple(
            (
                f"{name}, {group}" if several else group,
                *(_share(*pair) for pair in zip(one.share[place], one.share_deviation[place], strict=True)),
                *(_number(value) for value in one.projection[place]),
            )
            for name, one in zip(found.names, found.gradients, strict=True)
            for place, group in enumerate(one.groups)
            if group in shared
        ),
    )


def _shared(found: GradientDominance) -> tuple[str, ...]:
    """Return the groups that several exits reach: elsewhere the one that does has all of the gradient."""
    reached = (found.share > 0).sum(axis=1) > 1
    return tuple(group for group, is_shared in zip(found.groups, reached, strict=True) if is_shared)


def _connectivity(found: Analyses) -> Section | None:
    connectivity = found.connectivity
    if connectivity is None:
        return None
    pictures = [
        picture(
            partial(loss_figures.plot_line, line, connectivity.exits),
            alt=f"Loss between {line.ends[0]} and {line.ends[1]}: barrier {line.barrier:.3f} nats.",
            caption="Dashed: the straight way between the ends. The barrier is the highest rise above it.",
        )
        for line in connectivity.lines
    ]
    if connectivity.plane is not None:
        pictures.append(
            picture(
                partial(loss_figures.plot_plane, connectivity.plane),
                alt="Mean loss of the exits on the plane through three networks.",
                caption="The plane through the three networks; contours at equal ratios.",
            )
        )
    exits = connectivity.exits
    table = Table(
        caption="Barrier in nats, of the mean loss and of each exit's; loss at both ends; their distance.",
        columns=("line", "mean of exits", *exits, "from", "to", "distance"),
        rows=tuple(
            (
                f"{line.ends[0]} to {line.ends[1]}",
                f"{line.barrier:.3f}",
                *(f"{one:.3f}" for one in line.exit_barriers),
                f"{line.total[0]:.3f}",
                f"{line.total[-1]:.3f}",
                words.quantity(line.distance),
            )
            for line in connectivity.lines
        ),
    )
    lead = f"The loss on the way from one network to another, on {connectivity.n_windows:,} windows"
    if connectivity.n_statistics:
        lead += f"; batch normalisation from {connectivity.n_statistics:,} of them at every point"
    return Section("connectivity", "Mode connectivity", f"{lead}.", tuple(pictures), (table,))


def _landscape(found: Analyses) -> Section | None:
    landscape = found.landscape
    if landscape is None:
        return None
    pictures = tuple(
        picture(
            partial(loss_figures.plot_landscape, landscape, exit_),
            alt=f"Loss of {exit_ or 'all exits'} on a plane around {found.names[-1]}.",
            caption="",
        )
        for exit_ in (*landscape.exits, None)
    )
    lead = (
        f"The loss around {found.names[-1]} on {landscape.n_windows:,} windows, in two random "
        f"directions, normalised filter by filter (seed {landscape.seed}). At 1, every filter has moved by "
        "its own length."
    )
    return Section("landscape", "Loss landscape", lead, pictures, ())


def _rank(found: Analyses) -> Section | None:
    if not found.rank:
        return None
    several, last = len(found.names) > 1, found.rank[-1]
    pictures = (
        picture(
            partial(figures.plot_rank, found.rank, found.names),
            alt="Rank of every block's output as a share of the largest possible.",
            caption="Effective rank: exp of the entropy of the singular values.",
        ),
        picture(
            partial(figures.plot_singular_values, last),
            alt=f"Singular values of the outputs of the blocks of {found.names[-1]}.",
            caption=f"{found.names[-1]}. Dashed: the threshold of the rank.",
        ),
    )
    table = Table(
        caption=f"Of n = {last.n_windows:,} windows and m features; no rank is above the smaller.",
        columns=("output", "rank", "share (%)", "effective rank", "m", "features of the block"),
        rows=tuple(
            (
                f"{name}, {exit_}" if several else exit_,
                words.count(int(one.rank[place])) if one.rank[place] else "0, constant",
                f"{100 * one.share[place]:.1f}",
                f"{one.effective_rank[place]:.1f}",
                words.count(int(one.n_features[place])),
                words.count(int(one.all_features[place])),
            )
            for name, one in zip(found.names, found.rank, strict=True)
            for place, exit_ in enumerate(one.exits)
        ),
    )
    return Section(
        "rank", "Numerical rank", "In how many directions the blocks' outputs vary.", pictures, (table,)
    )


def _information(found: Analyses) -> Section | None:
    if not found.information:
        return None
    several, last = len(found.names) > 1, found.information[-1]
    whiskers = "" if several else " Whiskers: 95 % interval over subjects drawn whole."
    pictures = (
        picture(
            partial(figures.plot_class_information, found.information, found.names),
            alt="What the blocks' outputs tell of the class at least.",
            caption=f"Lower bounds H(Y) - CE, estimates.{whiskers}",
        ),
        picture(
            partial(figures.plot_window_information, found.information, found.names),
            alt="Estimates of what the blocks' outputs tell of the window.",
            caption=(
                f"Gaussian noise of {last.noise:g} on {last.components} principal components of variance 1 "
                "on average. Whiskers: standard deviation over repetitions."
            ),
        ),
    )
    table = Table(
        caption=(
            f"In nats; H(Y) = {last.label_entropy:.3f}. Intervals over the judged subjects, ± over "
            "repetitions. Gaussian channel: what the estimator makes of as many points and components of the "
            "same variances, of how much there is; the difference is the error to reckon with. Shuffled: "
            "windows and outputs paired at random, where the truth is 0."
        ),
        columns=("output", "linear probe", "MLP probe", "I(X; Z + noise)", "Gaussian channel", "shuffled"),
        rows=tuple(
            (
                f"{name}, {exit_}" if several else exit_,
                _bound(one.linear[place]),
                _bound(one.mlp[place]),
                _repeated(one.of_window[place]),
                f"{one.channel[place].found.mean:.2f} of {one.channel[place].known:.2f}",
                _repeated(one.shuffled[place]),
            )
            for name, one in zip(found.names, found.information, strict=True)
            for place, exit_ in enumerate(one.exits)
        ),
    )
    lead = (
        f"What every block's output tells of the class, by probes fitted on {last.n_fitted:,} windows and "
        f"judged on {last.n_judged:,} of {words.subjects(last.judged_subjects)}; and what of the window "
        "itself."
    )
    n_subjects = len(last.judged_subjects)
    if 1 < n_subjects < FEW_SUBJECTS:
        lead += (
            f" The intervals draw whole subjects, and there are {n_subjects}: with fewer than {FEW_SUBJECTS} "
            "they are narrower than their level says."
        )
    return Section("information", "Information flow", lead, pictures, (table,))


def _some(n: int) -> list[int]:
    """Return the places of the networks whose heat maps are drawn."""
    return sorted({round(place) for place in np.linspace(0, n - 1, min(n, MOST_HEAT_MAPS))})


def _share(value: float, deviation: float) -> str:
    if not np.isfinite(value):
        return words.NOT_APPLICABLE
    if not np.isfinite(deviation):
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f}{words.NBSP}±{words.NBSP}{100 * deviation:.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else words.NOT_APPLICABLE


def _bound(bound: ProbeBound) -> str:
    if bound.interval is None:
        return f"{bound.value:.3f}"
    return f"{bound.value:.3f} [{bound.interval.low:.3f},{words.NBSP}{bound.interval.high:.3f}]"


def _repeated(estimate: Repeated) -> str:
    return f"{estimate.mean:.3f}{words.NBSP}±{words.NBSP}{estimate.deviation:.3f}"

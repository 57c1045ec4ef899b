"""The page of played streams: one self-contained HTML file, no script, no request, both colour schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mexit_edge.report import canvas, words
from mexit_edge.report import playback_figures as figures
from mexit_edge.report import playback_tables as tables
from mexit_edge.report.environment import load_template
from mexit_edge.report.page import KeyFigure
from mexit_edge.report.theme import Picture, picture

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest
    from mexit_edge.estimate import Estimate
    from mexit_edge.simulate import Playback, SideBySide

TEMPLATE = "playback.html.j2"
# A difference that would read as 0.0 %.
_AS_MUCH = 0.0005


def check_installed() -> None:
    """Refuse to begin where the page or its figures cannot be made in the end.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    load_template(TEMPLATE)
    canvas.load_matplotlib()


def render_playback_page(
    *,
    manifest: Manifest,
    sides: SideBySide,
    source: str,
    faults: Sequence[str] = (),
    given: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the whole page as HTML.

    Args:
        manifest: of the bundle that was played.
        sides: the playback, and what stands beside it.
        source: whose recordings they are, in a few words.
        faults: as they were given.
        given: what else was, by name, that a playback does not know: seeds, and what was done to recordings.
        notes: what is estimated, left out or taken for granted.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    playback = sides.policy
    hop_s = manifest.sensor.hop_ms / 1e3
    return str(
        load_template(TEMPLATE).render(
            name=manifest.name,
            about=_about(manifest, playback, source),
            title=f"{manifest.name}: {playback.summary.n_windows:,} windows played",
            headline=headline(sides),
            key_figures=_key_figures(sides),
            sides=tables.sides_table(sides),
            energy=_energy(sides),
            exits=_exits(playback, hop_s),
            latency=_latency(sides, 1e3 * hop_s),
            battery=_battery(sides),
            no_latency=_why_no_latency(playback),
            no_energy=_why_no_energy(playback),
            no_battery=_why_no_battery(playback),
            outcomes=tables.outcomes_table(playback),
            leaving=tables.leaving_table(playback),
            streams=tables.streams_table(playback),
            conditions=tables.conditions_table(manifest, playback, faults, given or {}),
            notes=notes,
        )
    )


def headline(sides: SideBySide) -> str:
    """Return the result in one sentence; a loss reads as a loss."""
    playback, alone = sides.policy, sides.single_exit
    summary = playback.summary
    done = summary.outcomes["decided"] + summary.outcomes["resumed"]
    said = f"Of {summary.n_windows:,} windows, {words.percent(done / summary.n_windows)} were decided"
    if summary.latency is not None:
        said += f", 95 % of these within {words.estimated(summary.latency.p95)} ms"
    mine, theirs = tables.per_hour(playback), tables.per_hour(alone)
    if mine is not None:
        said += f", at {words.estimated(mine)} mJ per hour"
        if theirs is not None and theirs.value > 0:
            said += f", {_against(mine.value / theirs.value)} a single exit"
    own, other = summary.quality.balanced_accuracy, alone.summary.quality.balanced_accuracy
    if own is not None and other is not None:
        said += f"; balanced accuracy {words.percent(own)} against {words.percent(other)} of the single exit"
    return said + "."


def _against(ratio: float) -> str:
    """Return a ratio of energies in words, up to "with"."""
    if abs(ratio - 1) < _AS_MUCH:
        return "as much as with"
    return f"{words.percent(abs(ratio - 1))} {'less' if ratio < 1 else 'more'} than with"


def _about(manifest: Manifest, playback: Playback, source: str) -> str:
    sensor, n_streams = manifest.sensor, len(playback.streams)
    where = "no device" if playback.costs is None else playback.costs.board.name
    return (
        f"{n_streams} stream{'s' if n_streams > 1 else ''}, {words.quantity(playback.played_s / 60)} "
        f"minutes: {source}, played on {where}. Windows of {sensor.window} samples at "
        f"{sensor.sampling_rate_hz:g} Hz, one every {sensor.hop} samples; {len(manifest.stages)} exits and "
        f"{len(manifest.classes)} classes."
    )


def _key_figures(sides: SideBySide) -> tuple[KeyFigure, ...]:
    playback = sides.policy
    summary, latency = playback.summary, playback.summary.latency
    rejected = summary.outcomes["rejected"]
    quality = summary.quality
    labelled = f"{quality.n_windows:,} labelled windows" if quality.n_windows else "none decided with a label"
    battery = playback.options.supply.battery_mah
    return (
        KeyFigure(
            "leave at the first exit",
            words.percent(summary.exit_shares[0]) if any(summary.exit_shares) else words.NOT_APPLICABLE,
            f"{words.macs(summary.mean_macs)} MACs per window in the mean, 0 where not computed",
        ),
        _key("estimated p95 latency, ms", latency.p95, "waiting included")
        if latency is not None
        else KeyFigure("estimated p95 latency, ms", *_why_no_latency(playback)),
        _key("estimated mJ per hour", tables.per_hour(playback), _beside(tables.per_hour(sides.single_exit))),
        _key("estimated days", tables.days(playback), f"on {battery:g} mAh")
        if battery is not None
        else KeyFigure(
            "windows rejected", words.percent(rejected / summary.n_windows), f"{rejected:,} windows"
        ),
        KeyFigure("balanced accuracy", words.percent(quality.balanced_accuracy), labelled),
    )


def _key(name: str, estimate: Estimate | None, context: str) -> KeyFigure:
    if estimate is None:
        return KeyFigure(name, words.UNKNOWN, context)
    return KeyFigure(
        name, words.quantity(estimate.value), f"{words.interval(estimate.low, estimate.high)}; {context}"
    )


def _beside(alone: Estimate | None) -> str:
    return f"single exit {words.quantity(None if alone is None else alone.value)}"


def _why_no_latency(playback: Playback) -> tuple[str, str]:
    """Return what stands in place of a latency where there is none, and why."""
    if playback.costs is None:
        return words.UNKNOWN, "no times without a device whose latencies are known"
    return words.NOT_APPLICABLE, "no window was computed"


def _why_no_energy(playback: Playback) -> str:
    """Return why it is unknown, where it is."""
    costs, energy = playback.costs, playback.summary.energy
    if costs is None:
        return "Unknown: no energy without a device whose latencies are known."
    if energy is None:
        return "None: no window was played."
    return f"Unknown: nothing is known of {' and '.join(energy.per_window.unknown)} of {costs.board.name}."


def _why_no_battery(playback: Playback) -> str:
    """Return why its days are unknown, where they are."""
    costs = playback.costs
    if playback.options.supply.battery_mah is None:
        return "Days on a battery: none was given."
    if costs is None or tables.per_hour(playback) is None:
        return "Days on the battery are unknown, as the energy is."
    return f"Days on the battery are unknown: nobody says how {costs.board.name} regulates its supply."


def _exits(playback: Playback, hop_s: float) -> Picture:
    shares = ", ".join(
        f"{name} {words.percent(share)}"
        for name, share in zip(playback.exits, playback.summary.exit_shares, strict=True)
    )
    left_out = len(playback.streams) - figures.MOST_STRIPS
    more = f" Of {len(playback.streams)} streams the first {figures.MOST_STRIPS}." if left_out > 0 else ""
    return picture(
        partial(figures.plot_exits_over_time, playback, hop_s),
        alt=f"Exits over time, a strip per stream. All windows: {shares}.",
        caption=(
            "A strip per stream: the exit of each window on top, the darker or brighter the later; rejected "
            "windows below it; the true class at the bottom, where it is known. Where windows are too many, "
            f"a cell shows the mean of neighbours.{more}"
        ),
        is_wide=True,
    )


def _latency(sides: SideBySide, hop_ms: float) -> Picture | None:
    latency = sides.policy.summary.latency
    if latency is None:
        return None
    return picture(
        partial(figures.plot_latencies, sides, hop_ms),
        alt=(
            f"Share of windows decided within a time. Policy: p50 {words.estimated(latency.p50)} ms, "
            f"p95 {words.estimated(latency.p95)} ms, p99 {words.estimated(latency.p99)} ms."
        ),
        caption=f"Waiting and waking up included. A window comes every {words.quantity(hop_ms)} ms.",
    )


def _energy(sides: SideBySide) -> Picture | None:
    if all(tables.per_hour(one) is None for one in sides):
        return None
    totals = ", ".join(f"{tables.way_name(one)} {words.estimated(tables.per_hour(one))}" for one in sides)
    return picture(
        partial(figures.plot_energy, sides),
        alt=f"Energy of an hour by part, in mJ: {totals}.",
        caption="Whiskers: interval of the sum. The sensor is a part where its power was given.",
    )


def _battery(sides: SideBySide) -> Picture | None:
    if all(tables.days(one) is None for one in sides):
        return None
    totals = ", ".join(f"{tables.way_name(one)} {words.estimated(tables.days(one))}" for one in sides)
    return picture(
        partial(figures.plot_battery, sides),
        alt=f"Battery left over days: {totals} days.",
        caption="If every hour goes on like the played ones; the band is the interval.",
    )

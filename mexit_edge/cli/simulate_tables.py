"""`mexit simulate` on streams: what came out, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mexit_edge.cli.estimate_tables import UNKNOWN, estimated, plain, show
from mexit_edge.cli.simulate_play import Played
from mexit_edge.cli.simulate_watch import in_time
from mexit_edge.estimate import Estimate
from mexit_edge.report import tables, words
from mexit_edge.report.playback_tables import (
    conditions,
    days,
    leaving_table,
    outcomes_table,
    parts_mj_per_hour,
    per_hour,
    sides_table,
)
from mexit_edge.simulate import Playback
from mexit_edge.simulate.playback_summary import Quality

PERCENTILES = ("p50", "p95", "p99", "max")
NOT_APPLICABLE = "-"


def print_played(played: Played, screen: Console) -> None:
    """Print outcomes, exits, quality, latency, energy, the three ways side by side, and the notes."""
    playback = played.playback
    summary = playback.summary
    n_streams = len(playback.streams)
    screen.print(
        f"{played.bundle.manifest.name}: {summary.n_windows:,} windows in {in_time(summary.played_s)} of "
        f"{n_streams} stream{'s' if n_streams > 1 else ''}, {played.source}.",
        markup=False,
    )
    for name, value in _conditions(played).items():
        screen.print(f"{name}: {value}", markup=False)
    show(screen, _on_screen("What became of the windows", outcomes_table(playback)))
    show(screen, _on_screen("Where computed windows left", leaving_table(playback)))
    for line in _quality_lines(playback):
        screen.print(line, markup=False)
    show(screen, _latency_table(played))
    show(screen, _on_screen("Side by side", sides_table(played.sides)))
    for note in played.notes:
        screen.print(f"- {note}", markup=False)


def _on_screen(title: str, table: tables.Table) -> Table:
    """Return a table of the page for the terminal, an interval in the line below its value."""
    shown = plain(title, table.columns[0], table.columns[1:])
    for row in table.rows:
        shown.add_row(*(escape(_in_plain(cell).replace(" [", "\n[")) for cell in row))
    return shown


def _in_plain(cell: str) -> str:
    """Return a cell of the page in characters that every terminal has."""
    return cell.replace(words.NBSP, " ").replace(words.NOT_APPLICABLE, NOT_APPLICABLE)


def _quality_lines(playback: Playback) -> list[str]:
    summary = playback.summary
    lines = [""]
    for what, one in (("decided", summary.quality), ("reported", summary.reported_quality)):
        if one.accuracy is None:
            lines.append(f"Quality, {what}: unknown, as no window with a label was {what}.")
        else:
            lines.append(
                f"Quality, {what}: balanced accuracy {one.balanced_accuracy:.4f}, "
                f"accuracy {one.accuracy:.4f} on {one.n_windows:,} labelled windows."
            )
    return lines


def _latency_table(played: Played) -> Table:
    summary, hop_ms = played.playback.summary, played.bundle.manifest.sensor.hop_ms
    title = f"Estimated: from a window's last sample to its decision, one window every {hop_ms:,.4g} ms"
    table = plain(title, "", ("value \\[low, high]",))
    # With a device a latency is not unknown: nothing was computed.
    none = UNKNOWN if played.playback.costs is None else NOT_APPLICABLE
    for name in PERCENTILES:
        latency = none if summary.latency is None else estimated(getattr(summary.latency, name))
        table.add_row(f"latency {name}, ms", latency)
    used = None if summary.utilisation is None else summary.utilisation.times(100)
    table.add_row("utilisation, %", estimated(used))
    for name, part in parts_mj_per_hour(played.playback).items():
        table.add_row(f"{name}, mJ per hour", estimated(part))
    table.add_row("energy, mJ per hour", estimated(per_hour(played.playback)))
    supply = played.playback.options.supply
    if supply.battery_mah is not None:
        table.add_row(f"days on {supply.battery_mah:g} mAh", estimated(days(played.playback)))
    return table


def _conditions(played: Played) -> dict[str, str]:
    return conditions(played.bundle.manifest, played.playback, played.faults, played.given)


def playback_facts(played: Played) -> dict[str, Any]:
    """Return the same in plain types."""
    playback = played.playback
    columns = playback.columns
    return {
        "bundle": played.bundle.manifest.name,
        "engine": playback.engine,
        "device": None if playback.costs is None else playback.costs.board.name,
        "stack": None if playback.costs is None else playback.costs.library.name,
        "source": played.source,
        "conditions": _conditions(played),
        "interrupted": played.is_interrupted,
        "streams": [
            {
                "name": one.name,
                "subject": one.subject,
                "windows": len(columns.of_stream(number)),
                "recorded_s": one.recorded_s,
                "played_s": one.played_s,
            }
            for number, one in enumerate(playback.streams)
        ],
        **way_facts(playback),
        "side_by_side": [{"name": one.name, **way_facts(one)} for one in played.sides],
        "notes": list(played.notes),
    }


def way_facts(playback: Playback) -> dict[str, Any]:
    """Return the figures of one way to play the streams, in plain types; unknown is None."""
    summary = playback.summary
    latency, energy = summary.latency, summary.energy
    return {
        "windows": summary.n_windows,
        "played_s": summary.played_s,
        "outcomes": summary.outcomes,
        "reasons": summary.reasons,
        "exit_shares": dict(zip(playback.exits, summary.exit_shares, strict=True)),
        "mean_macs": summary.mean_macs,
        "quality": {
            "decided": _quality_facts(summary.quality),
            "reported": _quality_facts(summary.reported_quality),
        },
        "estimated_latency_ms": None
        if latency is None
        else {name: _interval(getattr(latency, name)) for name in PERCENTILES},
        "estimated_utilisation": _interval(summary.utilisation),
        "estimated_energy_mj_per_hour": _interval(per_hour(playback)),
        "estimated_parts_mj_per_hour": {
            name: _interval(part) for name, part in parts_mj_per_hour(playback).items()
        },
        "estimated_battery_days": _interval(days(playback)),
        "unknown": [] if energy is None else list(energy.per_window.unknown),
    }


def _quality_facts(quality: Quality) -> Mapping[str, float | None]:
    return {
        "windows": quality.n_windows,
        "accuracy": quality.accuracy,
        "balanced_accuracy": quality.balanced_accuracy,
    }


def _interval(one: Estimate | None) -> dict[str, float] | None:
    return None if one is None else {"value": one.value, "low": one.low, "high": one.high}

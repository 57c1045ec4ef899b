"""Tables of a playback: what became of windows, three ways side by side, and what was in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from mexit_edge.bundle import TemporalSpec
from mexit_edge.bundle.card import temporal_words
from mexit_edge.estimate.energy.period import default_battery_v
from mexit_edge.report import words
from mexit_edge.report.tables import Table

if TYPE_CHECKING:
    from mexit_edge.bundle import Manifest
    from mexit_edge.estimate import Estimate
    from mexit_edge.signals import Health
    from mexit_edge.simulate import Playback, SideBySide
    from mexit_edge.simulate.playback_summary import Quality

MOST_STREAMS = 24


def conditions(
    manifest: Manifest, playback: Playback, faults: Sequence[str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return what was in force while streams were played, by name.

    Args:
        manifest: of the bundle.
        playback: of it.
        faults: as they were given.
        given: what else was, that a playback does not know: seeds, and what was done to the recordings.
    """
    options, costs = playback.options, playback.costs
    found = {
        "device": "none: no times" if costs is None else f"{costs.board.name}, {costs.library.name}",
        "engine": f"{playback.engine}{', stage by stage' if options.executed else ''}",
        "policy": _policy(manifest),
        "temporal rules": _temporal(manifest, playback),
        "controller": _controller(manifest, playback),
        "faults": "; ".join(faults) or "none",
        "brown-outs": _brown_outs(playback),
        "missing samples": f"up to {options.max_fill} in a row hold the last value",
    }
    if options.health is not None:
        found["windows rejected for"] = _health(manifest, options.health)
    if costs is not None:
        supply, supply_v = options.supply, options.supply.supply_v or costs.board.supply_v.value
        found["between windows"] = supply.rest
        found["windows that may wait"] = str(options.waiting)
        power_mw = supply.sensor_power_mw
        found["sensor"] = "not counted" if power_mw is None else f"{power_mw:g} mW all the time"
        found["supply"] = f"{supply_v:g} V"
        volt = supply.battery_v or default_battery_v(supply_v)
        found["battery"] = "none" if supply.battery_mah is None else f"{supply.battery_mah:g} mAh, {volt:g} V"
    return found | dict(given)


def _policy(manifest: Manifest) -> str:
    policy = manifest.policy
    if policy is None:
        return "none: every window runs to the final exit"
    return f"{policy.score} from {', '.join(f'{one:.3g}' for one in policy.thresholds) or 'no threshold'}"


def _temporal(manifest: Manifest, playback: Playback) -> str:
    chain = playback.options.temporal_rule(manifest)
    if chain is None:
        return "none"
    said = []
    for rule in chain.rules:
        options = {one.name: getattr(rule, one.name) for one in fields(rule)}  # type: ignore[arg-type]
        said.append(temporal_words(TemporalSpec(name=rule.name, options=options)))
    return "; ".join(said)


def _controller(manifest: Manifest, playback: Playback) -> str:
    spec = None if manifest.policy is None else manifest.policy.controller
    if playback.options.fixed_thresholds or spec is None:
        return "none" if spec is None else "left out"
    return f"holds {spec.budget * spec.unit_cost:,.6g} {spec.unit} in the mean over {spec.horizon:,} windows"


def _brown_outs(playback: Playback) -> str:
    one = playback.options.brown_out
    if one is None:
        return "none"
    where = "a stage that is drawn" if one.after is None else f"stage {one.after}"
    which = f"windows {words.numbers(one.windows)}" if one.windows else f"{one.share:.1%} of the windows"
    said = f"in {which}, after {where}, seed {one.seed}"
    if one.boot_ms:
        said += f", {one.boot_ms:g} ms to boot"
    return said + (f", {one.damaged:.1%} of the stores damaged" if one.damaged else "")


def _health(manifest: Manifest, health: Health) -> str:
    said = ["missing samples", "values that are not finite"]
    if health.stuck:
        said.append("a stuck channel")
    if health.saturated_share is not None:
        at = f"more than {health.saturated_share:.0%} of a channel at its limits"
        if health.limits is not None:
            channels = manifest.sensor.channels
            pairs = np.broadcast_to(np.asarray(health.limits, float), (len(channels), 2)).tolist()
            each = (f"{name} {low:g} to {high:g}" for name, (low, high) in zip(channels, pairs, strict=True))
            at += f" ({', '.join(each)})"
        said.append(at)
    return "; ".join(said)


def parts_mj_per_hour(playback: Playback) -> dict[str, Estimate | None]:
    """Return what each part of the energy takes in an hour, None where unknown.

    The sensor is a part where its power was given. Empty where no times are known.
    """
    energy = playback.summary.energy
    if energy is None:
        return {}
    hours = energy.n_periods * energy.per_window.period.period_ms / 3.6e6
    return {
        name.replace("_", "-"): None if part is None else part.times(1 / hours)
        for name, part in energy.parts_mj.items()
        if name != "sensor" or part is not None
    }


def way_name(playback: Playback) -> str:
    """Return the name of a way to play streams, in words."""
    return playback.name.replace("_", " ")


def sides_table(sides: SideBySide) -> Table:
    """Return policy, always full and single exit, a column each."""
    has_battery = sides.policy.options.supply.battery_mah is not None
    rows = [
        ("mean MACs, 0 if not computed", *(words.macs(one.summary.mean_macs) for one in sides)),
        *(
            (f"latency {name}, ms", *(_latency(one, name) for one in sides))
            for name in ("p50", "p95", "p99", "max")
        ),
        ("utilisation, %", *(_utilisation(one) for one in sides)),
        ("energy, mJ per hour", *(words.estimated(per_hour(one)) for one in sides)),
        *((("days on the battery", *(words.estimated(days(one)) for one in sides)),) if has_battery else ()),
        ("balanced accuracy, decided", *(_balanced(one.summary.quality) for one in sides)),
        ("balanced accuracy, reported", *(_balanced(one.summary.reported_quality) for one in sides)),
    ]
    return Table(
        caption=(
            "Always full: every window runs through all stages and heads. Single exit: the same network "
            "without its early heads, in one invocation. Latency is from a window's last sample to its "
            "decision. Times and energies are estimated; in brackets: value at the low and the high end."
        ),
        columns=("", *(way_name(one) for one in sides)),
        rows=tuple(rows),
    )


def per_hour(playback: Playback) -> Estimate | None:
    """Return the energy of an hour in mJ, None where unknown."""
    return None if playback.summary.energy is None else playback.summary.energy.mj_per_hour


def days(playback: Playback) -> Estimate | None:
    """Return the days on the battery, None where unknown or without one."""
    return None if playback.summary.energy is None else playback.summary.energy.battery_days


def _latency(playback: Playback, name: str) -> str:
    latency = playback.summary.latency
    if latency is None:
        # With a device it is not unknown: nothing was computed.
        return words.UNKNOWN if playback.costs is None else words.NOT_APPLICABLE
    return words.estimated(getattr(latency, name))


def _utilisation(playback: Playback) -> str:
    used = playback.summary.utilisation
    return words.estimated(None if used is None else used.times(100))


def _balanced(quality: Quality) -> str:
    return words.percent(quality.balanced_accuracy)


def outcomes_table(playback: Playback) -> Table:
    """Return how many windows ended how, and why."""
    summary = playback.summary
    rows = [
        (word, "", words.count(count), words.percent(count / summary.n_windows))
        for word, count in summary.outcomes.items()
    ]
    rows += [
        ("reason", reason, words.count(count), words.percent(count / summary.n_windows))
        for reason, count in summary.reasons.items()
    ]
    return Table(
        caption=(
            "Decided: left at an exit. Resumed: decided after a brown-out, from the stored boundary, or anew "
            "where the store was damaged. Skipped: not computed, as a temporal rule wanted. Rejected: never "
            "reached the network, for its samples, or because nothing was left to keep it in (overrun)."
        ),
        columns=("outcome", "reason", "windows", "share"),
        rows=tuple(rows),
    )


def leaving_table(playback: Playback) -> Table:
    """Return where computed windows left."""
    counts = (int((playback.columns.exit == number).sum()) for number in range(1, len(playback.exits) + 1))
    return Table(
        caption="Of the windows that were computed.",
        columns=("exit", "windows", "share", "MACs"),
        rows=tuple(
            (name, words.count(count), words.percent(share), words.macs(macs))
            for name, count, share, macs in zip(
                playback.exits, counts, playback.summary.exit_shares, playback.exit_macs, strict=True
            )
        ),
    )


def streams_table(playback: Playback) -> Table:
    """Return what became of each stream, of at most `MOST_STREAMS`."""
    rows = []
    for number, one in enumerate(playback.streams[:MOST_STREAMS]):
        own = playback.columns.of_stream(number)
        exits = own.exit[own.computed]
        rows.append(
            (
                one.name,
                words.quantity(one.recorded_s),
                words.count(len(own)),
                words.percent(float(own.computed.mean()) if len(own) else None),
                words.percent(float(own.rejected.mean()) if len(own) else None),
                f"{exits.mean():.2f}" if len(exits) else words.NOT_APPLICABLE,
            )
        )
    left_out = len(playback.streams) - len(rows)
    return Table(
        caption=f"{left_out} more streams are not shown." if left_out else "Every stream that was played.",
        columns=("stream", "seconds", "windows", "computed", "rejected", "mean exit"),
        rows=tuple(rows),
    )


def conditions_table(
    manifest: Manifest, playback: Playback, faults: Sequence[str], given: Mapping[str, str]
) -> Table:
    """Return `conditions` as a table."""
    return Table(
        caption="The same streams, options and seeds give the same page.",
        columns=("what", "in force"),
        rows=tuple(conditions(manifest, playback, faults, given).items()),
        is_text=True,
    )

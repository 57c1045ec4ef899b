"""The page of played streams and its figures: whole, small, honest about what is unknown."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from fixtures_networks import CLASSES, SENSOR, bundle_of, hand_whole, synthetic_windows

from mexit_edge.bundle import Bundle
from mexit_edge.report import words
from mexit_edge.report.playback_tables import MOST_STREAMS, conditions, outcomes_table, parts_mj_per_hour
from mexit_edge.signals import Health, Recording, RecordingStream, Stream, apply_faults, parse_fault
from mexit_edge.simulate import (
    BrownOut,
    Columns,
    Playback,
    PlayedStream,
    PlayOptions,
    Reason,
    SideBySide,
    Supply,
    compare,
    play,
)

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from mexit_edge.report import (
    plot_battery,
    plot_energy,
    plot_exits_over_time,
    plot_latencies,
    render_playback_page,
)
from mexit_edge.report.playback_figures import MOST_CELLS, MOST_STRIPS, exits_picture
from mexit_edge.report.playback_page import headline

HOP_S = SENSOR.hop / SENSOR.sampling_rate_hz
FAULTS = ("nan=0.004", "dropped=0.02,burst=4")


@cache
def bundle() -> Bundle:
    return bundle_of(hand_whole(), thresholds=(3, 5))


def stream(name: str = "walk", subject: int = 3) -> Stream:
    windows = synthetic_windows(40, seed=subject)
    x = windows.x.reshape(-1, 3)
    one = Recording(x, np.repeat(windows.y, SENSOR.window), subject, SENSOR, name)
    return apply_faults(RecordingStream(one, CLASSES), [parse_fault(fault) for fault in FAULTS])


@cache
def sides(device: str | None = "nucleo-l4r5zi", battery_mah: float | None = 200) -> SideBySide:
    options = PlayOptions(
        all_exits=True,
        brown_out=BrownOut(share=0.1, after=1),
        supply=Supply("sleep", sensor_power_mw=0.5, battery_mah=battery_mah),
    )
    given = [stream(), stream("<b>lie & sit</b>", subject=4)]
    playback = play(bundle(), given, device=device, engine="litert-reference", options=options)
    return compare(playback, bundle())


@cache
def page_of_sides() -> str:
    return rendered(sides())


def rendered(shown: SideBySide, **given: object) -> str:
    options = {"source": "made up", "faults": FAULTS, "notes": ("a note <i>",)} | given
    return render_playback_page(manifest=bundle().manifest, sides=shown, **options)


def test_the_page_is_whole_and_asks_for_nothing_outside():
    page = page_of_sides()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    # Nothing is loaded but what lies in the page.
    assert re.findall(r'(?:src|srcset|href)="(?!data:|#)', page) == []
    assert page.count("<img ") == page.count('media="screen and (prefers-color-scheme: dark)"') == 4
    for section in re.findall(r'href="#(\w+)"', page):
        assert f'<section id="{section}">' in page
    assert "&lt;b&gt;lie &amp; sit&lt;/b&gt;" in page
    assert "<b>lie" not in page
    assert "a note &lt;i&gt;" in page
    assert "nan=0.004; dropped=0.02,burst=4" in page


def test_the_same_streams_give_the_same_page():
    assert rendered(sides()) == page_of_sides()


def test_figures_are_those_of_the_summary():
    page, summary = page_of_sides(), sides().policy.summary
    for value in (
        words.estimated(summary.latency.p95),
        words.estimated(summary.energy.mj_per_hour),
        words.estimated(summary.energy.battery_days),
        words.percent(summary.quality.balanced_accuracy),
        *(f"<td>{reason}</td><td>{count:,}</td>" for reason, count in summary.reasons.items()),
    ):
        assert value in page
    rows = outcomes_table(sides().policy).rows
    assert [row[2] for row in rows[:4]] == [f"{count:,}" for count in summary.outcomes.values()]
    assert headline(sides()) in page.replace("&lt;", "<")


def test_without_a_device_the_page_says_what_is_unknown():
    page = rendered(sides(None, None))
    assert page.count("<img ") == 1
    assert "No latency: no times without a device whose latencies are known." in page
    assert "Unknown: no energy without a device whose latencies are known." in page
    assert "Days on a battery: none was given." in page
    assert "mJ per hour" in page
    assert "ms" not in headline(sides(None, None))
    assert parts_mj_per_hour(sides(None, None).policy) == {}


def test_powers_that_are_unknown_are_no_bars_of_0():
    shown = sides("andes-d25f", None)
    assert shown.policy.summary.energy.mj_per_hour is None
    page = rendered(shown)
    # Exits and latency; neither energy nor battery.
    assert page.count("<img ") == 2
    assert "Unknown: nothing is known of active power and sleep power and wake-up time of andes-d25f." in page
    # The sensor alone, whose power was given, is a bar.
    assert len(plot_energy(shown).patches) == 3


def test_what_was_in_force_is_named():
    found = conditions(bundle().manifest, sides().policy, FAULTS, {"seed of faults": "3"})
    assert found["faults"] == "nan=0.004; dropped=0.02,burst=4"
    assert found["seed of faults"] == "3"
    assert found["brown-outs"] == "in 10.0% of the windows, after stage 1, seed 0"
    assert found["between windows"] == "sleep"
    assert found["temporal rules"] == found["controller"] == "none"
    assert found["missing samples"] == "up to 3 in a row hold the last value"
    assert (found["sensor"], found["battery"]) == ("0.5 mW all the time", "200 mAh, 3 V")


@pytest.mark.parametrize(
    "change",
    [
        {"waiting": 3},
        {"max_fill": 1},
        {"health": Health(limits=(-0.2, 0.2))},
        {"health": Health(stuck=False, saturated_share=None)},
        {"brown_out": BrownOut(share=0.1, after=1, seed=5)},
        {"brown_out": BrownOut(windows=(3, 4))},
        {"supply": Supply("sleep", sensor_power_mw=0.5, battery_mah=220)},
        {"supply": Supply("sleep", sensor_power_mw=0.5, battery_mah=200, battery_v=3.6)},
        {"supply": Supply("sleep", sensor_power_mw=0.5, battery_mah=200, supply_v=2.5)},
        {"supply": Supply("sleep", sensor_power_mw=0.4, battery_mah=200)},
    ],
)
def test_no_other_option_reads_like_these(change):
    playback = sides().policy
    other = replace(playback, options=replace(playback.options, **change))
    manifest = bundle().manifest
    assert conditions(manifest, other, FAULTS, {}) != conditions(manifest, playback, FAULTS, {})


@cache
def rejected(device: str, supply: Supply) -> SideBySide:
    """A stream of which no window is computed."""
    nothing = apply_faults(stream(), [parse_fault("nan=1")])
    options = PlayOptions(all_exits=True, supply=supply)
    return compare(
        play(bundle(), [nothing], device=device, engine="litert-reference", options=options), bundle()
    )


def test_where_nothing_is_computed_rest_and_sensor_still_draw():
    shown = rejected("nucleo-l4r5zi", Supply("sleep", sensor_power_mw=0.5, battery_mah=200))
    summary, board = shown.policy.summary, shown.policy.costs.board
    assert (summary.outcomes["decided"], summary.latency) == (0, None)
    expected = (board.sleep_power_mw.value + 0.5) * 3600
    assert summary.energy.mj_per_hour.value == pytest.approx(expected)
    assert summary.energy.total_mj.value == pytest.approx(expected / 3600 * summary.played_s)
    parts = parts_mj_per_hour(shown.policy)
    assert parts["rest"].value == pytest.approx(board.sleep_power_mw.value * 3600)
    assert parts["active"].value == parts["wake-up"].value == 0
    assert summary.energy.battery_days.value > 0
    page = rendered(shown, notes=summary.notes)
    assert page.count("<img ") == 3
    assert "No latency: no window was computed." in page
    assert "No window was computed: there is no latency, and energy is that of rest" in page
    assert "device whose latencies" not in page
    assert "as much as with a single exit" in headline(shown)


def test_what_is_not_used_need_not_be_known():
    shown = rejected("andes-d25f", Supply())
    assert shown.policy.costs.board.active_power_mw is None
    idle = shown.policy.costs.board.idle_power_mw
    energy = shown.policy.summary.energy
    assert (energy.mj_per_hour is None) == (idle is None)
    assert "active power" not in energy.per_window.unknown


def test_a_dearer_policy_reads_as_dearer():
    shown = sides()
    swapped = SideBySide(
        replace(shown.always_full, name="policy"),
        shown.always_full,
        replace(shown.policy, name="single_exit"),
    )
    assert "% more than with a single exit" in headline(swapped)


# Figures


def test_bars_add_up_to_the_energy_of_an_hour():
    ax = plot_energy(sides())
    widths = np.zeros(3)
    for container in ax.containers:
        for row, bar in enumerate(getattr(container, "patches", [])):
            widths[row] += bar.get_width()
    expected = [one.summary.energy.mj_per_hour.value for one in sides()]
    np.testing.assert_allclose(widths, expected)


def test_latency_curves_end_at_the_largest_and_the_hop_is_a_line():
    ax = plot_latencies(sides(), 1e3 * HOP_S)
    lines = {line.get_label(): line for line in ax.lines}
    for one in sides():
        curve = lines[one.name.replace("_", " ")].get_xdata()
        assert curve[-1] == pytest.approx(one.summary.latency.max.value)
        assert curve[len(curve) // 2] == pytest.approx(one.summary.latency.p50.value)
    assert list(lines["one hop"].get_xdata()) == [320, 320]


def test_the_battery_is_empty_at_its_days():
    ax = plot_battery(sides())
    for line, one in zip(ax.lines, sides(), strict=True):
        assert list(line.get_xdata()) == [0, one.summary.energy.battery_days.value]


def test_a_strip_shows_exits_rejected_windows_and_labels():
    playback = sides().policy
    image = np.asarray(plot_exits_over_time(playback, HOP_S).images[0].get_array())
    own = playback.columns.of_stream(0)
    strip = image[: image.shape[0] // 2, : len(own)]
    # A cell is a window here: painted on top where it was computed, below where it was rejected.
    np.testing.assert_array_equal(strip[0, :, 3] > 0, own.computed)
    np.testing.assert_array_equal(strip[5, :, 3] > 0, own.rejected)
    np.testing.assert_array_equal(strip[7, :, 3] > 0, own.y >= 0)
    assert 0 < own.rejected.sum() < len(own)
    for exit_ in (1, 2, 3):
        assert len({tuple(colour) for colour in strip[0, own.exit == exit_]}) <= 1
    colours = {tuple(strip[7, place]) for place in np.flatnonzero(own.y >= 0)}
    assert len(colours) == len(np.unique(own.y[own.y >= 0]))


def long_playback(n_streams: int, n_windows: int) -> Playback:
    """A playback of many windows, by its columns alone."""
    n = n_streams * n_windows
    rng = np.random.default_rng(0)
    number = np.tile(np.arange(n_windows), n_streams)
    exit_ = rng.integers(0, 4, n)
    zeros = np.zeros(n, np.int64)
    columns = Columns.of(
        stream=np.repeat(np.arange(n_streams), n_windows),
        number=number,
        start=number * SENSOR.hop,
        ready_ns=number * 320_000_000,
        start_ns=np.where(exit_ > 0, number * 320_000_000, -1),
        finish_ns=np.where(exit_ > 0, number * 320_000_000 + exit_ * 1_000_000, -1),
        exit=exit_,
        label=np.where(exit_ > 0, 1, -1),
        reported=np.where(exit_ > 0, 1, -1),
        y=number % 4,
        outcome=np.where(exit_ > 0, 0, 3),
        reason=np.where(exit_ > 0, Reason.NONE, Reason.NOT_FINITE),
        filled=zeros,
        again=zeros,
        full_label=zeros,
        final_label=zeros,
    )
    streams = tuple(PlayedStream(f"s{place}", 0, 1.0, 1.0) for place in range(n_streams))
    return replace(sides(None, None).policy, columns=columns, streams=streams)


@pytest.mark.parametrize(("n_streams", "n_windows"), [(1, 270_000), (40, 1500)])
def test_long_recordings_and_many_streams_stay_small(n_streams, n_windows):
    playback = long_playback(n_streams, n_windows)
    ax = plot_exits_over_time(playback, HOP_S)
    rows, cells, _ = np.asarray(ax.images[0].get_array()).shape
    assert cells <= MOST_CELLS
    assert rows <= 11 * MOST_STRIPS
    assert ax.get_xlim()[1] * (3600 if n_windows > 2000 else 60) == pytest.approx(
        n_windows * HOP_S, rel=2 / MOST_CELLS
    )
    assert len(exits_picture(playback, HOP_S, "svg")) < 400_000
    page = rendered(SideBySide(playback, playback, playback))
    assert len(page) < 1_200_000
    assert ("more streams are not shown" in page) == (n_streams > MOST_STREAMS)

"""`mexit simulate`: run a bundle on a data set's test windows, or play streams through it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mexit_edge.bundle import Bundle, load_policy
from mexit_edge.cli.estimate_request import read_device
from mexit_edge.cli.guarded import EXIT_INTERRUPTED
from mexit_edge.cli.options import DEFAULTS
from mexit_edge.cli.simulate_request import FOLDER_FILES, SimulateRequest, in_option_words
from mexit_edge.cli.tables import (
    console,
    estimate_table,
    print_json,
    quality_facts,
    quality_table,
)
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle
from mexit_edge.files import written_whole
from mexit_edge.simulate import simulate

if TYPE_CHECKING:
    from mexit_edge.cli.simulate_play import Played

WINDOWS, SUMMARY, PAGE = FOLDER_FILES


def simulate_and_print(path: Path, request: SimulateRequest) -> None:
    """Simulate, write what was asked for, and print the tables.

    Raises:
        InputError: the bundle is not whole, an option is wrong, recordings do not fit, or the bundle has seen
            the test subjects.
        typer.Exit: it was interrupted, and what was played so far is printed.
    """
    try:
        request.check()
        bundle = Bundle.load(path)
        if request.policy is not None:
            bundle = load_policy(bundle, request.policy)
        if request.plays:
            _play(bundle, request)
        else:
            _evaluate(bundle, request)
    except InputError as error:
        raise InputError(in_option_words(str(error))) from error


def _evaluate(bundle: Bundle, request: SimulateRequest) -> None:
    """Run the windows of a data set's test subjects, one by one."""
    device = read_device(request.target.device)
    name = request.recordings.data or DEFAULTS.data
    test = split_by_subject(load(name), test=dataset(name).standard_test, seed=request.recordings.seed).test
    simulation = simulate(bundle, test, engine=request.target.engine)
    estimate = estimate_bundle(bundle, device, request.target.stack)
    if request.output.as_json:
        print_json(quality_facts(simulation, estimate))
        return
    screen = console(quiet=False)
    screen.print(quality_table(simulation, None))
    screen.print(estimate_table(simulation, estimate))
    screen.print(simulation.drop_sentence, markup=False)


def _play(bundle: Bundle, request: SimulateRequest) -> None:
    """Play streams, write what was asked for, and print what came out."""
    from mexit_edge.cli.simulate_play import play_recordings
    from mexit_edge.cli.simulate_tables import playback_facts, print_played
    from mexit_edge.report.playback_page import check_installed

    if request.output.wants_pictures:
        check_installed()
    screen = console(quiet=request.output.as_json)
    played = play_recordings(bundle, request, screen)
    written = _write(played, request)
    if request.output.as_json:
        print_json(playback_facts(played) | {"written": [str(one) for one in written]})
    else:
        print_played(played, screen)
        for one in written:
            screen.print(f"Written: {one}", markup=False, soft_wrap=True)
    if played.is_interrupted:
        typer.echo("Interrupted: the figures are of what was played so far.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)


def _write(played: Played, request: SimulateRequest) -> list[Path]:
    """Write each file that was asked for, whole, and return them."""
    from mexit_edge.cli.simulate_tables import playback_facts
    from mexit_edge.report.playback_figures import exits_picture
    from mexit_edge.report.playback_page import render_playback_page

    output, sensor = request.output, played.bundle.manifest.sensor
    page = ""
    if output.out is not None or output.page is not None:
        page = render_playback_page(
            manifest=played.bundle.manifest,
            sides=played.sides,
            source=played.source,
            faults=played.faults,
            given=played.given,
            notes=played.notes,
        )
    if output.out is not None:
        with written_whole(output.out, overwrite=output.overwrite) as folder:
            folder.mkdir()
            _write_windows(played, folder / WINDOWS)
            summary = json.dumps(playback_facts(played), indent=1)
            (folder / SUMMARY).write_text(summary + "\n", encoding="utf-8")
            (folder / PAGE).write_text(page, encoding="utf-8")
    if output.page is not None:
        with written_whole(output.page, overwrite=output.overwrite) as fresh:
            fresh.write_text(page, encoding="utf-8")
    if output.csv is not None:
        with written_whole(output.csv, overwrite=output.overwrite) as fresh:
            _write_windows(played, fresh)
    if output.figure is not None:
        kind = output.figure.suffix.lower().removeprefix(".")
        hop_s = sensor.hop_ms / 1e3
        with written_whole(output.figure, overwrite=output.overwrite) as fresh:
            fresh.write_bytes(exits_picture(played.playback, hop_s, "svg" if kind == "svg" else "png"))
    return [one for one in (output.out, output.page, output.csv, output.figure) if one is not None]


def _write_windows(played: Played, path: Path) -> None:
    """Write a row per window; a cell without a value is empty."""
    tidy = played.playback.tidy()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(tidy)
        writer.writerows(zip(*tidy.values(), strict=True))

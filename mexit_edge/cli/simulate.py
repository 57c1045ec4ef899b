"""`mexit simulate`: execute a bundle on the test subjects of a data set."""

from __future__ import annotations

from pathlib import Path

from mexit_edge.bundle import Bundle
from mexit_edge.cli.tables import (
    console,
    estimate_table,
    print_json,
    quality_facts,
    quality_table,
)
from mexit_edge.data import dataset, load, split_by_subject
from mexit_edge.estimate import estimate_bundle, load_device
from mexit_edge.simulate import simulate


def simulate_and_print(
    path: Path, data: str, engine: str | None, device: str, seed: int, *, as_json: bool
) -> None:
    """Simulate and print the table of exits.

    Raises:
        InputError: the bundle is not whole, a name is unknown, or it has seen the test subjects.
    """
    load_device(device)
    test = split_by_subject(load(data), test=dataset(data).standard_test, seed=seed).test
    simulation = simulate(path, test, engine=engine)
    estimate = estimate_bundle(Bundle.load(path), device)
    if as_json:
        print_json(quality_facts(simulation, estimate))
        return
    screen = console(quiet=False)
    screen.print(quality_table(simulation, None))
    screen.print(estimate_table(simulation, estimate))
    screen.print(simulation.drop_sentence, markup=False)

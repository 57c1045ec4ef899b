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
from mexit_edge.errors import InputError
from mexit_edge.estimate import estimate_bundle, load_device
from mexit_edge.signals import Windows
from mexit_edge.simulate import simulate


def simulate_and_print(
    path: Path, data: str, engine: str | None, device: str, seed: int, *, as_json: bool
) -> None:
    """Simulate and print the table of exits.

    Raises:
        InputError: the bundle is not whole, a name is unknown, or the bundle was trained on test subjects.
    """
    load_device(device)
    bundle = Bundle.load(path)
    test = unseen_test_windows(bundle, data, seed)
    simulation = simulate(bundle, test, engine=engine)
    estimate = estimate_bundle(bundle, device)
    if as_json:
        print_json(quality_facts(simulation, estimate))
        return
    screen = console(quiet=False)
    screen.print(quality_table(simulation, None))
    screen.print(estimate_table(simulation, estimate))
    screen.print(simulation.drop_sentence, markup=False)


def unseen_test_windows(bundle: Bundle, data: str, seed: int) -> Windows:
    """Return the test subjects' windows of a data set, after checking that the bundle has not seen them.

    Raises:
        InputError: the bundle was trained, validated or calibrated on one of these subjects.
    """
    official = dataset(data).official_test_subjects
    test = split_by_subject(load(data), test="official" if official else None, seed=seed).test
    manifest = bundle.manifest
    calibration = manifest.policy.calibration if manifest.policy else None
    seen: set[int] = set()
    if manifest.training.data == data:
        seen |= {*manifest.training.train_subjects, *manifest.training.validation_subjects}
    if calibration is not None and calibration.data == data:
        seen |= set(calibration.subjects)
    overlap = sorted(seen & set(test.subjects))
    if overlap:
        raise InputError(
            f"`--data {data} --seed {seed}` must give test subjects that the bundle has not seen. "
            f"Received: subjects {', '.join(map(str, overlap))}. Use the seed the bundle was made with."
        )
    return test

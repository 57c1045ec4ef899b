"""The log of every evaluation on test subjects: who looks often enough will find something."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mexit_edge.benchmark.quality_cost import decided, final_credit, policy_credit
from mexit_edge.benchmark.record import RunRecord
from mexit_edge.benchmark.sweep import TEST
from mexit_edge.errors import InputError
from mexit_edge.exits import balanced_weights
from mexit_edge.files import refuse_unwritable, sha256, write_bytes

COLUMNS = (
    "time_utc",
    "run",
    "record_sha256",
    "data",
    "backbone",
    "regime",
    "seed",
    "subjects",
    "final_exit_balanced_accuracy",
    "policy_balanced_accuracy",
    "policy_mean_macs_share",
)
MAX_BYTES = 1 << 28


class EvaluationLog:
    """A CSV with a line per record that was judged on test subjects, whatever became of it.

    A run that is done again, by other code for instance, has another record and another line. Several sweeps
    may share a log.

    Args:
        path: of the file; made with the first line.

    Raises:
        InputError: there is something else at its place, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        refuse_unwritable(path)
        self.path = path
        self._lines()

    def add(self, files: Iterable[Path]) -> None:
        """Add a line for each record that has none yet.

        Args:
            files: of records; those that were judged out of fold are left out.

        Raises:
            InputError: a record is damaged, or the log is none any more.
        """
        from filelock import FileLock

        files = list(files)
        if not files:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            lines = self._lines()
            known = {line["record_sha256"] for line in lines}
            new = []
            for file in files:
                digest = sha256(file.read_bytes())[:16]
                if digest not in known:
                    record = RunRecord.load(file)
                    if record.run.judged_on == TEST:
                        new.append(_line(record, digest))
            if new:
                text = io.StringIO()
                writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows([*lines, *new])
                write_bytes(self.path, text.getvalue().encode(), overwrite=True)

    def _lines(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            reader = csv.DictReader(io.StringIO(self.path.read_text("utf-8")))
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"the columns {', '.join(reader.fieldnames or ()) or 'of an empty file'}")
            return list(reader)
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(
                f"`test_log` must be a log of evaluations on test subjects, with the columns "
                f"{', '.join(COLUMNS)}. Received: {self.path}: {error}."
            ) from error


def _line(record: RunRecord, digest: str) -> dict[str, Any]:
    run = record.run
    costs = np.asarray(record.exit_macs)[decided(record)[0] - 1]
    return {
        "time_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "run": run.key,
        "record_sha256": digest,
        "data": run.data,
        "backbone": run.backbone,
        "regime": run.regime,
        "seed": run.seed,
        "subjects": " ".join(map(str, record.subjects["judged"])),
        "final_exit_balanced_accuracy": _balanced(record, final_credit(record)),
        "policy_balanced_accuracy": _balanced(record, policy_credit(record)),
        "policy_mean_macs_share": round(float(costs.mean()) / record.plain_macs, 6),
    }


def _balanced(record: RunRecord, credit: Any) -> float:
    return round(float(np.mean(balanced_weights(record.y) * credit)), 6)

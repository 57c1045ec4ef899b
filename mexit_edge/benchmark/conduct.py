"""Conduct a sweep: hand out the runs that are open until none is, whatever becomes of the workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from mexit_edge.benchmark.folder import SweepFolder
from mexit_edge.benchmark.pools import Pool, WorkersLostError
from mexit_edge.benchmark.sweep import Run, Sweep
from mexit_edge.benchmark.worker import work
from mexit_edge.errors import RunError

# Losses in a row between which no run was begun: the back end itself does not work.
MOST_LOSSES = 3
POLL_S = 0.5

Notice = Callable[[Run, str | None], None]


def conduct(
    sweep: Sweep,
    runs: Sequence[Run],
    folder: SweepFolder,
    pool: Pool,
    notice: Notice = lambda run, failure: None,
) -> None:
    """Do those among runs of a sweep that are not finished.

    Call it with the folder locked. A run that fails does not stop the others. When a worker dies, what it and
    its neighbours had begun is begun again, one at a time, so that none is blamed for another's worker; a run
    that has cost two workers has failed (`work`).

    Args:
        sweep: checked; noted in the folder.
        runs: of the sweep, all or some.
        folder: where it goes on.
        pool: who does it.
        notice: called from another thread as each run ends, with the reason where it failed. What it raises
            is raised when all runs have ended.

    Raises:
        InputError: the folder holds something else.
        RunError: the disk is full, or workers or their scheduler are lost time and again.
    """
    folder.begin(sweep)
    with _Watch(folder, [run for run in runs if folder.is_open(run)], notice):
        in_a_row, before = 0, folder.state(runs)
        while waiting := [run for run in runs if folder.is_open(run)]:
            fresh = [run for run in waiting if not folder.is_started(run)]
            turn, workers = (fresh, pool.workers) if fresh else (waiting[:1], 1)
            try:
                pool.run(
                    work, [(str(folder.path.absolute()), run.model_dump_json()) for run in turn], workers
                )
            except WorkersLostError as error:
                now = folder.state(runs)
                in_a_row, before = 0 if now != before else in_a_row + 1, now
                if in_a_row >= MOST_LOSSES:
                    raise RunError(
                        f"The workers of the back end {pool.backend} must stay alive. Received: {error}, "
                        f"{in_a_row} times before any run was begun. Finished runs are whole; start the same "
                        f"sweep again with `--out {folder.path}`."
                    ) from error


class _Watch(threading.Thread):
    """Looks for runs that have ended: every back end shows progress in the same way."""

    def __init__(self, folder: SweepFolder, runs: Sequence[Run], notice: Notice) -> None:
        super().__init__(daemon=True)
        self._folder, self._open, self._notice = folder, list(runs), notice
        self._over = threading.Event()
        self._failed: Exception | None = None

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, kind: object, *error: object) -> None:
        self._over.set()
        self.join()
        # What ended the sweep itself says more.
        if self._failed is not None and kind is None:
            raise self._failed

    def run(self) -> None:
        """Look twice a second, and once more at the end."""
        try:
            while not self._over.wait(POLL_S):
                self._look()
            self._look()
        # The runs go on; who waits for them raises it.
        except Exception as error:
            self._failed = error

    def _look(self) -> None:
        for run in [run for run in self._open if not self._folder.is_open(run)]:
            self._open.remove(run)
            self._notice(run, self._folder.failures([run]).get(str(run)))

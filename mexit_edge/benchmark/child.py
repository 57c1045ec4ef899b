"""Do one run in a process of its own: `python -m mexit_edge.benchmark.child FOLDER`, fed with the run.

One thread per run, so that results do not depend on how many there are at once or on who runs them: sums in
another order are other sums. The process ends when its standard input does, that is with whoever began it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path

DONE, FAILED, DISK_FULL = 0, 3, 4
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def main(folder: str) -> int:
    """Do the run and return the exit code."""
    line = sys.stdin.readline()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from mexit_edge.benchmark.folder import SweepFolder, is_full
    from mexit_edge.benchmark.sweep import Run
    from mexit_edge.errors import InputError, RunError

    place, run = SweepFolder(Path(folder)), Run.model_validate_json(line)
    try:
        from mexit_edge.benchmark.run import perform

        perform(run).save(place.record_file(run))
    except Exception as error:
        if is_full(error):
            return DISK_FULL
        known = isinstance(error, InputError | RunError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        place.fail(run, reason, traceback.format_exc())
        return FAILED
    return DONE


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

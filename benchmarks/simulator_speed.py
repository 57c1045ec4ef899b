"""What playing streams costs beyond the bare engine calls, and how much memory a day takes.

    python benchmarks/simulator_speed.py [--bundle BUNDLE] [--repeats N] [--out FOLDER]

Speed: 10,000 windows of HAPT's official test recordings, end to end as one stream, are played through the
three stages of the reference bundle: cutting, health, counts, quantization, exit rule, queue and columns. The
other side is the very LiteRT calls that this makes, with their int8 inputs ready; interpreters are open on
both. The ratio is the median over turns in one process. With the policy at work most windows stop at the
first exit, and an engine call is over in microseconds per window; ``to_the_end`` runs all three stages for
every window. The estimate of the device is made beforehand. With XNNPACK, which is quick enough for the rest
to show, the parts are measured by themselves too, against the same calls: cutting windows and their health;
the way in, from floats through counts to int8; the loop over stages, its engine calls included. They add up
to less than the whole, because what runs between engine calls finds the caches full of the engine's tensors.

Memory: the largest resident set of a process that plays 24 hours at 50 Hz x 6 channels, the same recordings
over and over, from a .npy that it maps.

Writes simulator_speed.csv; exit code 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tables
from runtime_overhead import REFERENCE, by_turns, recorded_batches

from mexit_edge.bundle import Bundle
from mexit_edge.data import open_streams
from mexit_edge.data.hapt import OFFICIAL_TEST_SUBJECTS, load_recordings
from mexit_edge.estimate import estimate_bundle
from mexit_edge.files import sha256
from mexit_edge.runtime import Runtime
from mexit_edge.signals import Recording, RecordingStream, StreamWindows
from mexit_edge.simulate import PlayOptions, play
from mexit_edge.simulate.way_in import WayIn, taking_int8

RESULTS = Path(__file__).parent / "results"
DEVICE = "nucleo-l4r5zi"
ENGINES = ("litert-xnnpack", "litert-reference")
N_WINDOWS = 10_000
DAY_SAMPLES = 24 * 3600 * 50
MAX_RATIO = 1.3
MAX_MEGABYTES = 300.0


def test_samples(n_samples: int) -> np.ndarray:
    """Return (n, 6) samples of the test recordings, one after the other, from the first again at the end."""
    parts = [one.x for one in load_recordings() if one.subject in OFFICIAL_TEST_SUBJECTS]
    return np.resize(np.concatenate(parts), (n_samples, parts[0].shape[1]))


def speed_rows(bundle: Bundle, engine: str, runs: str, repeats: int) -> list[dict[str, Any]]:
    sensor = bundle.manifest.sensor.to_sensor()
    x = test_samples((N_WINDOWS - 1) * sensor.hop + sensor.window)
    stream = RecordingStream(Recording(x, np.full(len(x), -1), 0, sensor, "hapt test"))
    runtime = Runtime(bundle, engine)
    options = PlayOptions()
    way_in, quick = WayIn(runtime), taking_int8(runtime)
    batches = list(StreamWindows(stream, batch=options.batch))
    quantized = [way_in.quantized(batch) for batch in batches]
    calls = [call for one in quantized for call in recorded_batches(quick, one)]
    before = runtime.invocations
    estimate = estimate_bundle(bundle, DEVICE)
    playback = play(runtime, [stream], device=estimate, options=options)
    stages = [after - at_first for after, at_first in zip(runtime.invocations, before, strict=True)]
    works: dict[str, Callable[[], object]] = {
        "play": lambda: play(runtime, [stream], device=estimate, options=options)
    }
    if engine == ENGINES[0]:
        works |= {
            "cutting and health": lambda: [None for _ in StreamWindows(stream, batch=options.batch)],
            "way in": lambda: [way_in.quantized(batch) for batch in batches],
            "loop": lambda: [quick.infer_batch(one) for one in quantized],
        }
    rows = []
    for what, work in works.items():
        middle, low, high = by_turns(work, lambda: [call() for call in calls], repeats)
        rows.append(
            {
                "what": f"{what}, {runs}",
                "engine": engine,
                "windows": len(playback),
                "windows_per_stage": " ".join(map(str, stages)),
                "figure": "ratio_to_bare_calls",
                "value": round(middle, 3),
                "lower_quartile": round(low, 3),
                "upper_quartile": round(high, 3),
                "limit": MAX_RATIO if what == "play" else "",
            }
        )
    return rows


def memory_row(bundle: Path, engine: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.npy"
        np.save(path, test_samples(DAY_SAMPLES))
        done = subprocess.run(
            [sys.executable, __file__, "--bundle", str(bundle), "--play-day", str(path), "--engine", engine],
            capture_output=True,
            text=True,
            check=True,
        )
    n_windows, megabytes = done.stdout.split()[-2:]
    return {
        "what": "play, a day",
        "engine": engine,
        "windows": int(n_windows),
        "windows_per_stage": "",
        "figure": "peak_megabytes",
        "value": float(megabytes),
        "lower_quartile": "",
        "upper_quartile": "",
        "limit": MAX_MEGABYTES,
    }


def play_day(bundle: Path, path: Path, engine: str) -> None:
    """Play one file in this process and print its windows and its largest resident set in MB.

    The kernel's high-water mark of this program: that of `getrusage` starts from the parent's.
    """
    opened = Bundle.load(bundle)
    streams = open_streams(path, opened.manifest.sensor.to_sensor(), sampling_rate_hz=50.0)
    playback = play(opened, streams, device=DEVICE, engine=engine)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(len(playback), round(int(kilobytes) / 1024, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=REFERENCE)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--play-day", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--engine", default=ENGINES[0], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play_day:
        play_day(given.bundle, given.play_day, given.engine)
        return 0
    bundle = Bundle.load(given.bundle)
    rows = [memory_row(given.bundle, ENGINES[0])]
    for engine in ENGINES:
        # The reference kernels take seconds where XNNPACK takes a tenth of one.
        repeats = given.repeats if engine == ENGINES[0] else max(3, given.repeats // 5)
        for runs, played in (("policy", bundle), ("to_the_end", bundle.with_manifest(policy=None))):
            rows += speed_rows(played, engine, runs, repeats)
    facts = {
        "bundle_sha256": sha256((given.bundle / "manifest.json").read_bytes())[:12],
        "ai_edge_litert": version("ai-edge-litert"),
        "numpy": version("numpy"),
    }
    rows = [{**row, "holds": row["value"] <= row["limit"] if row["limit"] else "", **facts} for row in rows]
    for row in rows:
        print(row)
    tables.write(given.out / "simulator_speed.csv", rows)
    return 1 if any(row["holds"] is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

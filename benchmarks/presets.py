"""What every backbone and preset costs as int8 stages: parameters, MACs, bytes, arena.

    python benchmarks/presets.py [--backbones NAME ...] [--out presets.csv]

Windows of 128 samples x 6 channels and 6 classes; for dscnn2d spectrograms of 49 frames x 10 bins and 12
classes. Each preset goes through the real conversion and cut; the rows replace those of the same backbone in
mexit_edge/models/presets.csv, which `mexit models` prints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tables

from mexit_edge.cli.models import measure
from mexit_edge.models import BACKBONES
from mexit_edge.models.presets import PRESETS
from mexit_edge.signals import Sensor

CSV = Path(__file__).parent.parent / "mexit_edge" / "models" / "presets.csv"
WINDOWS, SPECTROGRAMS = (Sensor.plain(6, 128), 6), (Sensor.plain(10, 49), 12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="*", default=sorted(BACKBONES), choices=sorted(BACKBONES))
    parser.add_argument("--out", type=Path, default=CSV)
    options = parser.parse_args()
    # Rows of backbones that are gone go too.
    kept = set(BACKBONES) - set(options.backbones)
    rows = [row for row in tables.read(options.out) if row["backbone"] in kept]
    for backbone in options.backbones:
        sensor, n_classes = SPECTROGRAMS if backbone == "dscnn2d" else WINDOWS
        for preset in PRESETS[backbone]:
            rows.append(measure(backbone, preset, sensor, n_classes).row)
            print(rows[-1], flush=True)
    # A stable sort: presets stay from tiny to medium.
    tables.write(options.out, sorted(rows, key=lambda row: row["backbone"]))


if __name__ == "__main__":
    main()

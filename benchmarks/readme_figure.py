"""Draw the README's picture: the reference bundle on the HAPT test subjects, executed by TFLM.

    python benchmarks/readme_figure.py

Writes docs/tradeoff.svg.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mexit_edge.bundle import Bundle
from mexit_edge.data import load, split_by_subject
from mexit_edge.report import plot_exit_shares, plot_tradeoff
from mexit_edge.simulate import simulate

ROOT = Path(__file__).parent.parent


def main() -> None:
    bundle = Bundle.load(ROOT / "tflite_models" / "reference.mexit")
    simulation = simulate(bundle, split_by_subject(load("hapt"), test="official").test)
    figure = Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    plot_tradeoff(simulation, ax=left)
    plot_exit_shares(simulation, ax=right)
    (ROOT / "docs").mkdir(exist_ok=True)
    figure.savefig(ROOT / "docs" / "tradeoff.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

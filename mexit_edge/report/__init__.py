"""What came out, to look at: figures that return Axes, and one self-contained HTML page."""

from mexit_edge.report.figures import (
    plot_confusion,
    plot_exit_shares,
    plot_reliability,
    plot_tradeoff,
)
from mexit_edge.report.page import render_page, write_page
from mexit_edge.report.playback_figures import (
    plot_battery,
    plot_energy,
    plot_exits_over_time,
    plot_latencies,
)
from mexit_edge.report.playback_page import render_playback_page
from mexit_edge.report.stages import plot_stages
from mexit_edge.report.training import plot_training

__all__ = [
    "plot_battery",
    "plot_confusion",
    "plot_energy",
    "plot_exit_shares",
    "plot_exits_over_time",
    "plot_latencies",
    "plot_reliability",
    "plot_stages",
    "plot_tradeoff",
    "plot_training",
    "render_page",
    "render_playback_page",
    "write_page",
]

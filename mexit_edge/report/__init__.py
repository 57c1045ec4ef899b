"""What came out, to look at: figures that return Axes, and one self-contained HTML page."""

from mexit_edge.report.analysis_figures import (
    plot_class_information,
    plot_gradient_conflicts,
    plot_gradient_shares,
    plot_rank,
    plot_shares_over_training,
    plot_singular_values,
    plot_window_information,
)
from mexit_edge.report.analysis_page import render_analysis_page
from mexit_edge.report.analysis_sections import Analyses
from mexit_edge.report.figures import (
    plot_confusion,
    plot_exit_shares,
    plot_reliability,
    plot_tradeoff,
)
from mexit_edge.report.loss_figures import plot_landscape, plot_line, plot_plane
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
    "Analyses",
    "plot_battery",
    "plot_class_information",
    "plot_confusion",
    "plot_energy",
    "plot_exit_shares",
    "plot_exits_over_time",
    "plot_gradient_conflicts",
    "plot_gradient_shares",
    "plot_landscape",
    "plot_latencies",
    "plot_line",
    "plot_plane",
    "plot_rank",
    "plot_reliability",
    "plot_shares_over_training",
    "plot_singular_values",
    "plot_stages",
    "plot_tradeoff",
    "plot_training",
    "plot_window_information",
    "render_analysis_page",
    "render_page",
    "render_playback_page",
    "write_page",
]

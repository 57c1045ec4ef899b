"""The page's two colour schemes for matplotlib, and a figure as an SVG data URI."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mexit_edge.report.canvas import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes


PNG_DPI = 200


@dataclass(frozen=True)
class Scheme:
    """Colours of one scheme; the same as the variables in style.css.

    Args:
        surface: behind the figure.
        ink: text.
        muted: axes and ticks.
        grid: grid lines.
        cycle: colours of curves and markers, each with a contrast above 3 on ``surface``.
    """

    surface: str
    ink: str
    muted: str
    grid: str
    cycle: tuple[str, ...]


LIGHT = Scheme(
    surface="#ffffff",
    ink="#1c2128",
    muted="#59636e",
    grid="#e3e7ec",
    cycle=("#1f63b5", "#b8500a", "#167a55", "#a0218a", "#6a5acd", "#7a6200", "#0f7c8c", "#8c4a4a"),
)
DARK = Scheme(
    surface="#1a2027",
    ink="#e3e8ee",
    muted="#9aa6b2",
    grid="#303943",
    cycle=("#79b3f2", "#f2a25c", "#62cfa3", "#f08bd6", "#b3a6f5", "#dcc25a", "#5fcfdd", "#e0a0a0"),
)


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Args:
        light: SVG data URI for a light surface.
        dark: SVG data URI for a dark one.
        alt: what the figure shows, for who cannot see it.
        caption: printed below it; none when empty.
        is_wide: whether it must not shrink to a narrow screen, and scrolls there instead.
    """

    light: str
    dark: str
    alt: str
    caption: str
    is_wide: bool = False


def picture(draw: Callable[[], Axes], alt: str, caption: str, *, is_wide: bool = False) -> Picture:
    """Draw a figure in both schemes.

    Args:
        draw: makes a new figure and returns its axes; called once per scheme.
        alt: text in place of the figure.
        caption: printed below the figure.
        is_wide: see `Picture`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return Picture(_data_uri(draw, LIGHT), _data_uri(draw, DARK), alt, caption, is_wide)


def svg(draw: Callable[[], Axes], scheme: Scheme = LIGHT, *, surface: bool = True) -> bytes:
    """Draw a figure as an SVG file.

    Args:
        draw: makes a new figure and returns its axes.
        scheme: its colours.
        surface: whether to fill the background; without, the reader's own shows through.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = load_matplotlib()
    content = io.BytesIO()
    with matplotlib.rc_context(rc(scheme)):
        # No date and a fixed salt: the same results give the same page, byte for byte.
        figure: Any = draw().figure
        figure.savefig(
            content,
            format="svg",
            facecolor=scheme.surface if surface else "none",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return content.getvalue()


def drawn(draw: Callable[[], Axes], kind: Literal["png", "svg"]) -> bytes:
    """Draw a figure as a file of that kind, in the light scheme.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if kind == "svg":
        return svg(draw)
    content = io.BytesIO()
    with load_matplotlib().rc_context(rc(LIGHT)):
        figure: Any = draw().figure
        figure.savefig(content, format="png", dpi=PNG_DPI, facecolor=LIGHT.surface)
    return content.getvalue()


def _data_uri(draw: Callable[[], Axes], scheme: Scheme) -> str:
    content = svg(draw, scheme, surface=False)
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"


def rc(scheme: Scheme) -> dict[str, Any]:
    """Return matplotlib's rcParams for a scheme."""
    from cycler import cycler

    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "legend.fontsize": 8.5,
        "legend.edgecolor": scheme.grid,
        "legend.facecolor": scheme.surface,
        "legend.framealpha": 0.9,
        "text.color": scheme.ink,
        "axes.labelcolor": scheme.ink,
        "axes.titlecolor": scheme.ink,
        "axes.edgecolor": scheme.muted,
        "axes.facecolor": scheme.surface,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=list(scheme.cycle)),
        "grid.color": scheme.grid,
        "xtick.color": scheme.muted,
        "ytick.color": scheme.muted,
        "xtick.labelcolor": scheme.ink,
        "ytick.labelcolor": scheme.ink,
        "svg.hashsalt": "mexit_edge",
        # Text as outlines: the page looks the same whatever fonts the reader has.
        "svg.fonttype": "path",
    }

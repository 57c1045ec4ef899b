"""What every figure needs: axes of a new figure, and colours taken from the rcParams in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mexit_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes(ax: Axes | None, width: float = 4.6, height: float = 3.5) -> Axes:
    """Return ``ax``, or the axes of a new figure of that size in inches."""
    load_matplotlib()
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def load_matplotlib() -> Any:
    """Import matplotlib, where nobody needs it before.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    return matplotlib


def cycle() -> list[Any]:
    """Return the colours of curves and markers."""
    return list(load_matplotlib().rcParams["axes.prop_cycle"].by_key()["color"])


def muted() -> Any:
    """Return the colour of what stands back: ticks and lines of reference."""
    return load_matplotlib().rcParams["xtick.color"]


def background() -> Any:
    """Return the colour behind the figure."""
    return load_matplotlib().rcParams["axes.facecolor"]


def colormap() -> Any:
    """Return the colour map of shares: from the background to the first colour of the cycle."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb, to_rgba

    surface = background()
    start = np.asarray(to_rgb(surface) if to_rgba(surface)[3] else (1.0, 1.0, 1.0))
    end = np.asarray(to_rgb(cycle()[0]))
    # Not quite the background at 0, so that an empty cell is still a cell.
    return LinearSegmentedColormap.from_list("shares", [tuple(0.94 * start + 0.06 * end), tuple(end)])


def ramp(n_exits: int) -> list[Any]:
    """Return one colour per exit, in the order of the colour map: exits are ordered, not categories."""
    return [colormap()(place) for place in np.linspace(0.3, 1.0, n_exits)]


def ink_on(colour: Any) -> str:
    """Return black or white for small text on ``colour``, by WCAG's relative luminance.

    Equal contrast is at 0.18; on saturated blues white still reads better up to about 0.26,
    at a ratio of 3.4.
    """
    from matplotlib.colors import to_rgb

    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.26 else "white"

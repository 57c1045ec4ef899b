"""A bundle's stages as a picture: boxes, and arrows for what crosses between them."""

from __future__ import annotations

import textwrap
from math import prod
from typing import TYPE_CHECKING, Any

from mexit_edge.bundle import Crossing, crossings
from mexit_edge.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mexit_edge.bundle import Manifest, StageSpec, TensorSpec

# In inches, as is everything that `plot_stages` places: text has a size of its own, whatever the figure's.
LINE, PAD, GAP, ROOM_FOR_ARROW = 0.17, 0.1, 0.16, 0.34
LEFT, BOX, RIGHT = 0.35, 3.9, 2.75
SKIP = 0.12
LETTERS = 55  # of a line in a box


def below(manifest: Manifest, number: int) -> tuple[Crossing, ...]:
    """Return what a stage, from 1, or the window, 0, hands on to later stages."""
    return tuple(one for one in crossings(manifest) if one.made_by == number and one.read_by)


def sensor_text(manifest: Manifest) -> str:
    """Return what a window of the sensor is."""
    sensor = manifest.sensor
    return f"{sensor.window} samples x {len(sensor.channels)} channels at {sensor.sampling_rate_hz:g} Hz"


def operators_text(stage: StageSpec) -> str:
    """Return the operators of a stage with their number."""
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in stage.ops.items())


def cost_text(stage: StageSpec) -> str:
    """Return what a stage computes and takes."""
    arena = "arena unknown" if stage.arena_bytes is None else f"arena {stage.arena_bytes:,} bytes"
    return f"{stage.macs:,} MACs, file {stage.flash_bytes:,} bytes, {arena}"


def tensor_texts(tensor: TensorSpec) -> tuple[str, str]:
    """Return shape and bytes, and the quantization, of an int8 tensor."""
    shape = "x".join(map(str, tensor.shape))
    return (
        f"{shape} int8, {prod(tensor.shape):,} bytes",
        f"scale {tensor.scale:.6g}, zero point {tensor.zero_point}",
    )


def rule_text(manifest: Manifest, number: int) -> str:
    """Return when a window leaves at an exit, from 1."""
    if number == len(manifest.stages):
        return "takes every window left"
    if manifest.policy is None:
        return "no threshold: nothing leaves"
    return f"leaves if {manifest.policy.score} >= {manifest.policy.thresholds_int[number - 1]}"


def readers_text(crossing: Crossing, manifest: Manifest) -> str:
    """Return who reads a tensor, where it is not the next stage alone; else nothing."""
    if crossing.read_by == (crossing.made_by + 1,):
        return ""
    return "read by " + ", ".join(manifest.exits[number - 1] for number in crossing.read_by)


def plot_stages(manifest: Manifest, ax: Axes | None = None) -> Axes:
    """Draw the stages one below the other, their exits to the right, long skips to the left.

    Args:
        manifest: of the bundle.
        ax: to draw on; None for a new figure, of the height that the stages need.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    heights = [_box_height(stage) for stage in manifest.stages]
    spaces = [_space_height(manifest, number) for number in range(len(heights))]
    skips = sum(reader > one.made_by + 1 for one in crossings(manifest) for reader in one.read_by)
    left = LEFT + SKIP * skips
    height = sum(heights) + sum(spaces) + LINE + 2 * PAD
    width = left + BOX + RIGHT
    canvas.load_matplotlib()
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.axis("off")
    _Drawing(ax, manifest, left).draw(heights, spaces)
    return ax


def _lines(stage: StageSpec) -> list[str]:
    return [*textwrap.wrap(operators_text(stage), LETTERS), cost_text(stage)]


def _box_height(stage: StageSpec) -> float:
    # At least as high as the three lines of the exit beside it.
    return max(1 + len(_lines(stage)), 4) * LINE + 2 * PAD


def _space_height(manifest: Manifest, number: int) -> float:
    """Return the height of what stands above stage ``number + 1``: the arrow, and its tensors' lines."""
    n_lines = sum(
        2 + bool(readers_text(one, manifest)) + (place > 0) * 0.3
        for place, one in enumerate(below(manifest, number))
    )
    return max(ROOM_FOR_ARROW, n_lines * LINE) + 2 * GAP


class _Drawing:
    """Places boxes, arrows and text on axes that are measured in inches."""

    def __init__(self, ax: Axes, manifest: Manifest, left: float) -> None:
        self.ax, self.manifest, self.left = ax, manifest, left
        self.accent = canvas.cycle()[0]

    def draw(self, heights: list[float], spaces: list[float]) -> None:
        y = PAD + LINE
        self.text(self.left, y - LINE / 2, sensor_text(self.manifest), bold=True)
        tops, bottoms = [], [y]
        for number, (stage, height, space) in enumerate(
            zip(self.manifest.stages, heights, spaces, strict=True), start=1
        ):
            self.handed_on(number - 1, y, y + space)
            y += space
            self.stage(number, stage, y, height)
            tops.append(y)
            y += height
            bottoms.append(y)
        self.skips(tops, bottoms)

    def stage(self, number: int, stage: StageSpec, top: float, height: float) -> None:
        from matplotlib.patches import FancyBboxPatch

        box = FancyBboxPatch(
            (self.left, top),
            BOX,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=canvas.colormap()(0.06),
            edgecolor=self.accent,
            linewidth=1.2,
        )
        self.ax.add_patch(box)
        y = top + PAD + LINE / 2
        self.text(self.left + PAD, y, stage.exit, bold=True)
        self.text(self.left + BOX - PAD, y, stage.file, muted=True, right=True)
        for place, line in enumerate(_lines(stage), start=1):
            self.text(self.left + PAD, y + place * LINE, line)
        start = self.left + BOX
        middle = top + height / 2
        self.arrow((start, middle), (start + ROOM_FOR_ARROW, middle))
        shape, quantization = tensor_texts(stage.outputs[0])
        facts = [stage.outputs[0].name, shape, quantization, rule_text(self.manifest, number)]
        for place, line in enumerate(facts):
            self.text(start + ROOM_FOR_ARROW + PAD / 2, middle + (place - 1.5) * LINE, line, bold=place == 3)

    def handed_on(self, number: int, top: float, bottom: float) -> None:
        """Draw what a stage hands to the next one, and name what it keeps for later ones."""
        crossing = below(self.manifest, number)
        x = self.left + 0.3
        next_reads = any(
            number + 1 in one.read_by and one.made_by == number for one in crossings(self.manifest)
        )
        if next_reads:
            self.arrow((x, top), (x, bottom))
        y = top + GAP + LINE / 2
        for one in crossing:
            shape, quantization = tensor_texts(one.tensor)
            self.text(x + PAD, y, f"{one.tensor.name}, {shape}")
            self.text(x + PAD, y + LINE, quantization, muted=True)
            y += 2 * LINE
            if note := readers_text(one, self.manifest):
                self.text(x + PAD, y, note, muted=True)
                y += LINE
            y += 0.3 * LINE

    def skips(self, tops: list[float], bottoms: list[float]) -> None:
        """Draw tensors that pass a stage by, each on a line of its own."""
        x = self.left
        for one in crossings(self.manifest):
            for reader in one.read_by:
                if reader <= one.made_by + 1:
                    continue
                x -= SKIP
                start, end = bottoms[one.made_by] - PAD, tops[reader - 1] + PAD
                # The window has no box to start from: its line begins beside its name.
                start = start if one.made_by else bottoms[0] - LINE / 2
                source = self.left if one.made_by else self.left - PAD / 2
                self.ax.plot([source, x, x], [start, start, end], color=self.accent, linewidth=1.2)
                self.arrow((x, end), (self.left, end))

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        style: dict[str, Any] = {"arrowstyle": "-|>", "color": self.accent, "linewidth": 1.2}
        self.ax.annotate("", end, start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})

    def text(
        self,
        x: float,
        y: float,
        line: str,
        *,
        bold: bool = False,
        muted: bool = False,
        right: bool = False,
    ) -> None:
        options: dict[str, Any] = {"color": canvas.muted()} if muted else {}
        self.ax.text(
            x,
            y,
            # A name with a dollar sign is no formula.
            line.replace("$", r"\$"),
            fontsize=7.5,
            fontweight="bold" if bold else "normal",
            ha="right" if right else "left",
            va="center",
            **options,
        )

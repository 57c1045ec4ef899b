"""A bundle's stages as boxes and arrows in the terminal; `report.plot_stages` draws the same as a picture."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from mexit_edge.bundle import Crossing, Manifest
from mexit_edge.report.stages import (
    below,
    cost_text,
    operators_text,
    readers_text,
    rule_text,
    sensor_text,
    tensor_texts,
)

WIDTH = 78
INDENT = "    "


def stage_drawing(manifest: Manifest) -> Group:
    """Return a box per stage, its exit in the box, and what it hands on below it."""
    parts: list[RenderableType] = [Text(f"\n{sensor_text(manifest)}", style="bold")]
    for number, stage in enumerate(manifest.stages, start=1):
        parts.append(_arrow(below(manifest, number - 1), manifest))
        logits = stage.outputs[0]
        lines = (
            operators_text(stage),
            cost_text(stage),
            f"{logits.name}: {', '.join(tensor_texts(logits))}",
            rule_text(manifest, number),
        )
        # As `Text`, names are shown as they are, brackets and all.
        body = Text("\n".join(lines))
        title = Text.assemble((stage.exit, "bold"), f" {stage.file}")
        parts.append(Panel(body, title=title, title_align="left", width=WIDTH))
    return Group(*parts)


def _arrow(crossing: tuple[Crossing, ...], manifest: Manifest) -> Text:
    lines = []
    for one in crossing:
        shape, quantization = tensor_texts(one.tensor)
        note = readers_text(one, manifest)
        lines += [f"{one.tensor.name}: {shape}", quantization, *([note] if note else [])]
    return Text("\n".join([*(f"{INDENT}│ {line}" for line in lines), f"{INDENT}▼"]))

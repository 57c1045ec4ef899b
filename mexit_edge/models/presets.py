"""Sizes of every backbone by name.

``"medium"`` is each backbone's own default. What a preset costs stands in presets.csv, which
`python benchmarks/presets.py` measures and `mexit models` prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Mapping[str, Any]]] = {
    "cnn": {"tiny": {"width": 0.25}, "small": {"width": 0.5}, "medium": {}},
    "dscnn": {
        "tiny": {
            "stem": (8, 7, 2),
            "blocks": (((12, 7, 2),), ((16, 5, 1), (24, 5, 2)), ((32, 5, 1), (32, 5, 1))),
        },
        "small": {
            "stem": (12, 7, 2),
            "blocks": (((24, 7, 2),), ((32, 7, 1), (48, 5, 2)), ((64, 5, 1), (64, 5, 1))),
        },
        "medium": {},
    },
    "dscnn2d": {
        "tiny": {
            "stem": (8, (10, 4), 2),
            "blocks": (((8, 3, 1),), ((12, 3, 1),), ((16, 3, 2),)),
        },
        "small": {
            "stem": (12, (10, 4), 2),
            "blocks": (((16, 3, 1),), ((24, 3, 1),), ((32, 3, 2), (32, 3, 1))),
        },
        "medium": {},
    },
    "msdnet": {
        "tiny": {"stem": (4, 7, 4), "scales": 2, "growth": 4, "blocks": (1, 2, 2)},
        "small": {"stem": (8, 7, 2), "scales": 3, "growth": 4, "blocks": (1, 2, 2)},
        "medium": {},
    },
    "resnet": {
        "tiny": {"stem": (8, 7, 2), "blocks": (((8, 3, 1),), ((12, 3, 2),), ((16, 3, 2),))},
        "small": {"stem": (8, 7, 2), "blocks": (((8, 5, 1),), ((16, 5, 2),), ((32, 3, 2),))},
        "medium": {},
    },
    "tcn": {
        "tiny": {"stem": (8, 7, 4), "blocks": ((8,), (8,), (8, 8))},
        "small": {"stem": (12, 7, 2), "blocks": ((12,), (12,), (12, 12))},
        "medium": {},
    },
}

"""docs/decisions.md and the firmware notes name everything that is registered, and nothing that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mexit_edge.exits import NEVER, RISK_LOSSES, RISK_METHODS, SCORES, TEMPORAL_RULES
from mexit_edge.signals import FAULTS
from mexit_edge.simulate import COSTS

ROOT = Path(__file__).parents[1]
DECISIONS = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
FIRMWARE = (ROOT / "firmware_notes" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*SCORES, *RISK_METHODS, *RISK_LOSSES, *COSTS])
def test_every_name_that_a_user_types_is_explained(name):
    assert f"`{name}`" in DECISIONS


@pytest.mark.parametrize("name", TEMPORAL_RULES)
def test_every_rule_over_a_stream_stands_in_its_table_with_its_defaults(name):
    (text,) = re.findall(rf"\| `{name}:([a-z=0-9,]+)` \|", DECISIONS)
    defaults = dict(option.split("=") for option in text.split(","))
    rule = TEMPORAL_RULES[name]()
    assert defaults == {option: str(getattr(rule, option)) for option in defaults}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_explained(name):
    assert f"`{name}" in DECISIONS


@pytest.mark.parametrize("name", SCORES)
def test_the_firmware_notes_know_every_score(name):
    assert f"`{name}`" in FIRMWARE


def test_never_is_the_largest_int32():
    assert NEVER == 2**31 - 1
    assert str(NEVER) in FIRMWARE

"""docs/regimes.md says of every regime what the code says."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("keras")

import mexit_edge
from mexit_edge.regimes import REGIMES, MultiExitEarlyStopping, PhaseCost, Regime
from mexit_edge.regimes.exit_weights import SCHEMES

PAGE = (Path(__file__).parents[1] / "docs" / "regimes.md").read_text("utf-8")
ARXIV = re.compile(r"\d{4}\.\d{5}")
COMMON = {field.name: field.default for field in fields(Regime)}
# Regimes of other tests that enter themselves in the registry have no page.
NAMES = sorted(name for name, regime in REGIMES.items() if regime.__module__.startswith("mexit_edge."))


def sections(level):
    """Return heading -> text of all sections of a level, without code marks in the heading."""
    parts = re.split(rf"^{'#' * level} (.+)$", PAGE, flags=re.MULTILINE)[1:]
    ends = re.compile(rf"^#{{1,{level}}} ", re.MULTILINE)
    return {
        heading.strip("`"): ends.split(text, maxsplit=1)[0]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def plain(text):
    return " ".join(text.split())


REGIME_SECTIONS, PARTS = sections(3), sections(2)


def table(text, first_column):
    """Return the rows, as lists of cells, of the table whose first column has this heading."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip() for cell in row.strip("|").split(" | ")])
            return rows
    return []


def defaults(text, first_column="option"):
    """Return name -> default, as stated in a table of options."""
    return {row[0].strip("` "): ast.literal_eval(row[1].strip("`")) for row in table(text, first_column)}


def own_options(regime):
    """Return the options that a regime adds to the common ones, or has with another default."""
    return {
        field.name: field.default
        for field in fields(regime)
        if field.name not in COMMON or field.default != COMMON[field.name]
    }


def same(stated, actual):
    """Compare names, values and types: 0 is not False, and 1 is not 1.0."""
    return {name: repr(value) for name, value in stated.items()} == {
        name: repr(value) for name, value in actual.items()
    }


def test_page_has_a_section_and_a_row_for_every_regime_and_no_other():
    assert sorted(REGIME_SECTIONS) == NAMES
    linked = [re.fullmatch(r"\[`(.+)`\]\(#(.+)\)", row[0]).groups() for row in table(PAGE, "regime")]
    assert sorted(name for name, _ in linked) == NAMES
    assert all(name == anchor for name, anchor in linked)


def test_common_options_and_schemes_are_stated():
    text = PARTS["Options common to all"]
    assert same(defaults(text), COMMON)
    assert [row[0].strip("| `") for row in table(text, "scheme")] == list(SCHEMES)


@pytest.mark.parametrize("name", NAMES)
def test_section_states_options_with_their_defaults(name):
    expected = own_options(REGIMES[name])
    text = REGIME_SECTIONS[name]
    assert same(defaults(text), expected)
    assert ("It has the common options alone." in text) == (not expected)


@pytest.mark.parametrize("name", NAMES)
def test_section_has_idea_equation_phases_cost_and_source(name):
    text = REGIME_SECTIONS[name]
    idea, *_ = text.strip().split("\n\n")
    assert idea.endswith(".")
    equations = re.findall(r"^    (.+)$", text, re.MULTILINE)
    assert equations
    assert all("=" in one or "min" in one or "learns" in one for one in equations)
    stated = dict(re.findall(r"^- \*\*(\w+):\*\* (.+(?:\n  .+)*)$", text, re.MULTILINE))
    assert list(stated) == ["Phases", "Cost", "Source"]
    phases = [phase.name for phase in REGIMES[name]().phases(3)]
    head, _, _ = stated["Phases"].partition(". ")
    assert re.findall(r"`([^`]+)`", head) == phases
    assert re.search(r"\d", stated["Cost"])
    in_docstring = set(ARXIV.findall(inspect.getdoc(REGIMES[name])))
    assert in_docstring <= set(ARXIV.findall(stated["Source"]))
    assert in_docstring or re.search(r"[A-Z]{4} \d{4}", stated["Source"])


@pytest.mark.parametrize("name", NAMES)
def test_names_that_an_option_takes_are_listed(name):
    rows = {row[0].strip("| `"): row for row in table(REGIME_SECTIONS[name], "option")}
    for option, default in own_options(REGIMES[name]).items():
        if not isinstance(default, str):
            continue
        with pytest.raises(mexit_edge.errors.InputError) as refused:
            REGIMES[name](**{option: "none of them"})
        known = re.search(r"one of:? (.+?)\. Received", str(refused.value))[1].split(", ")
        assert sorted(re.findall(r"`(\w+)`", rows[option][2])) == sorted(known)


def test_page_says_which_regimes_are_exceptions():
    single = sorted(name for name in NAMES if REGIMES[name].min_exits == 1)
    assert single == ["consistency", "joint"]
    assert "All but `joint` and `consistency` need a network of at least two exits." in plain(PAGE)
    assert [name for name in NAMES if REGIMES[name].uses_unlabelled] == ["consistency"]
    assert "`consistency` alone learns from them" in PARTS["Windows without a label"]


def test_early_stopping_and_cost_are_stated():
    signature = inspect.signature(MultiExitEarlyStopping).parameters
    stated = defaults(PARTS["Early stopping for several exits"], "argument")
    assert same(stated, {name: parameter.default for name, parameter in signature.items()})
    figures = [row[0] for row in table(PARTS["Training cost"], "figure")]
    named = re.findall(r"`(\w+)`", " ".join(figures))
    assert ["phase", *named] == [field.name for field in fields(PhaseCost)]


SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_snippets_are_python_whose_imports_exist():
    assert len(SNIPPETS) >= 3
    tree = ast.parse("\n".join(SNIPPETS))
    compile(tree, "docs/regimes.md", "exec")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    space = {}
    exec(compile(ast.Module(imports, []), "docs/regimes.md", "exec"), space)
    assert space["mx"] is mexit_edge
    made = {
        node.func.id: {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in mexit_edge.regimes.__all__
    }
    assert made
    for name, options in made.items():
        space[name](**options)


def test_commands_name_regimes_and_options_that_exist():
    commands = re.findall(r"^(mexit (?:train|run) .+)$", PAGE, re.MULTILINE)
    assert commands
    for command in commands:
        regime = REGIMES[re.search(r"--regime (\S+)", command)[1]]
        options = re.findall(r'--set "?(\w+)=', command)
        assert options
        assert set(options) <= {field.name for field in fields(regime)}

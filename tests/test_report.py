import base64
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from itertools import accumulate

import numpy as np
import pytest

from mexit_edge.bundle import (
    Calibration,
    InputSpec,
    Manifest,
    NormalisationSpec,
    Policy,
    SensorSpec,
    StageSpec,
    TensorSpec,
    Training,
)
from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.estimate import (
    BundleEstimate,
    BundleMemory,
    Estimate,
    ExitEstimate,
    MemoryFit,
    MemoryPlan,
    StageEstimate,
    load_device,
)
from mexit_edge.estimate.latency.terms import TERMS
from mexit_edge.estimate.latency.workload import Workload
from mexit_edge.estimate.results import priced
from mexit_edge.exits import ExitRule, make_scores
from mexit_edge.report import (
    plot_confusion,
    plot_exit_shares,
    plot_reliability,
    plot_tradeoff,
    plot_training,
    render_page,
    words,
    write_page,
)
from mexit_edge.report.figures import reliability_bins
from mexit_edge.report.pictures import pictured_exits
from mexit_edge.report.tables import stages_table
from mexit_edge.report.theme import Picture
from mexit_edge.simulate import Simulation, oracle_gap

matplotlib = pytest.importorskip("matplotlib")
axes_module = pytest.importorskip("matplotlib.axes")
pytest.importorskip("jinja2")

CLASSES = ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying_down")
SKILL = (1.6, 2.6, 3.4, 3.6, 3.7, 3.8)
STAGE_MACS = (310_000, 820_000, 2_150_000, 2_400_000, 2_500_000, 2_600_000)
SCALE = 0.08
SECTIONS = [
    "tradeoff",
    "exits",
    "shares",
    "stages",
    "confusion",
    "reliability",
    "training",
    "parity",
    "thresholds",
    "settings",
    "notes",
]
LATENCY = "estimated ms [low, high]"
ENERGY = "estimated uJ [low, high]"


@pytest.fixture
def without_drawing(monkeypatch):
    """Replace the figures by empty ones, for tests of words and tables."""

    def picture(draw, alt, caption, *, is_wide=False):
        empty = "data:image/svg+xml;base64,PHN2Zy8+"
        return Picture(empty, empty, alt, caption, is_wide)

    monkeypatch.setattr("mexit_edge.report.pictures.picture", picture)


@pytest.fixture(scope="module")
def drawn():
    """Give the whole page, drawn once."""
    return render_page(**make_arguments())


def make_simulation(n=300, n_exits=3, classes=CLASSES, n_subjects=9, seed=0, thresholds=None):
    rng = np.random.default_rng(seed)
    y = rng.integers(len(classes), size=n)
    subject = rng.integers(1, n_subjects + 1, size=n) * 2
    hardness = rng.normal(0, 1, (n, 1))
    logits = np.empty((n, n_exits, len(classes)), np.int8)
    for index in range(n_exits):
        real = rng.normal(0, 1, (n, len(classes))) + 0.3 * hardness
        real[np.arange(n), y] += SKILL[index % len(SKILL)]
        # Neighbouring classes are taken for one another, as walking upstairs and downstairs are.
        real[np.arange(n), (y + 1) % len(classes)] += 0.8
        logits[:, index] = np.clip(np.round(real / SCALE), -128, 127)
    thresholds = (26,) * (n_exits - 1) if thresholds is None else thresholds
    scores = make_scores("logit_margin", [SCALE] * n_exits, len(classes))
    rule = ExitRule(scores, tuple(thresholds), (True,) * n_exits)
    exit_, label = rule.decide(logits)
    return Simulation(
        engine="tflm",
        data="hapt",
        y=y,
        subject=subject,
        classes=tuple(classes),
        exits=tuple(f"exit_{number:02d}" for number in range(1, n_exits + 1)),
        logits=logits,
        scales=(SCALE,) * n_exits,
        stage_macs=tuple(STAGE_MACS[index % len(STAGE_MACS)] for index in range(n_exits)),
        rule=rule,
        has_policy=True,
        exit=exit_,
        label=label,
        invocations=tuple(int(np.sum(exit_ >= number)) for number in range(1, n_exits + 1)),
    )


def make_manifest(simulation, arena_bytes=18_432, calibrated=True):
    def tensor(name, shape):
        return TensorSpec(name=name, shape=shape, scale=SCALE, zero_point=0)

    carried = tensor("window", (1, 128, 6))
    stages = []
    for index, name in enumerate(simulation.exits):
        boundary = tensor(f"boundary_{index + 1:02d}", (1, 64 >> index, 32))
        last = index == len(simulation.exits) - 1
        logits = tensor(name, (1, len(simulation.classes)))
        stages.append(
            StageSpec(
                file=f"stage_{index + 1:02d}.tflite",
                sha256="0" * 64,
                flash_bytes=14_208 + 9_000 * index,
                exit=name,
                inputs=(carried,),
                outputs=(logits,) if last else (logits, boundary),
                ops={"CONV_2D": 3},
                macs=simulation.stage_macs[index],
                live_macs=simulation.stage_macs[index] - 512,
                arena_bytes=arena_bytes,
            )
        )
        carried = boundary
    calibration = Calibration(
        data="hapt",
        subjects=(1, 3, 5, 7),
        n_windows=1_412,
        max_drop=0.01,
        drop=0.0031,
        drop_upper=0.0094,
        cost="macs",
        exact=True,
        engine="tflm",
    )
    return Manifest(
        name="hapt-dscnn",
        sensor=SensorSpec(
            channels=("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"),
            units=("g", "g", "g", "rad/s", "rad/s", "rad/s"),
            sampling_rate_hz=50,
            window=128,
            hop=64,
        ),
        normalisation=NormalisationSpec(offset=(0.0,) * 6, scale=(1.0,) * 6),
        classes=simulation.classes,
        input=InputSpec(scale=0.05, zero_point=0),
        stages=tuple(stages),
        policy=Policy(
            score="logit_margin",
            thresholds=tuple(SCALE * threshold for threshold in simulation.thresholds_int),
            thresholds_int=simulation.thresholds_int,
            calibration=calibration if calibrated else None,
        ),
        training=Training(
            data="hapt",
            backbone="dscnn",
            regime="mixed",
            seed=0,
            epochs=40,
            train_subjects=(19, 21, 23, 25, 27),
            validation_subjects=(29,),
        ),
        versions={"tensorflow": "2.21.0", "mexit-edge": "0.1.0"},
    )


def make_estimate(simulation, has_energy=True, arena_bytes=18_432, unknown=(), **fit):
    board = load_device("nucleo-l4r5zi").model_copy(update={} if has_energy else {"active_power_mw": None})
    library = board.stack().model_copy(update={} if has_energy else {"active_power_mw": None})
    asked = [
        Workload(macs * np.eye(len(TERMS))[0], np.zeros(len(TERMS)), 0.0, unknown, ())
        for macs in simulation.stage_macs
    ]

    def made(kind, name, macs, work):
        return kind(
            **priced(work, board, library),
            macs=macs,
            live_macs=macs,
            exit=name,
            file_bytes=14_200,
            flash_bytes=14_208,
            arena_bytes=arena_bytes,
            estimated_arena_bytes_32bit=None if arena_bytes is None else arena_bytes - 4_000,
        )

    up_to = list(accumulate(asked))
    ram_bytes = None if arena_bytes is None else 16_480
    plan = MemoryPlan((), None if arena_bytes is None else arena_bytes - 4_000, 2_048)
    return BundleEstimate(
        board=board,
        library=library,
        workloads=tuple(asked),
        stages=tuple(map(partial(made, StageEstimate), simulation.exits, simulation.stage_macs, asked)),
        exits=tuple(map(partial(made, ExitEstimate), simulation.exits, simulation.exit_macs, up_to)),
        operations=(),
        memory=BundleMemory((), MemoryPlan((), arena_bytes, 2_048), plan),
        fit=MemoryFit(
            **{
                "flash_bytes": 60_000,
                "device_flash_bytes": 2_097_152,
                "estimated_ram_bytes": ram_bytes,
                "device_ram_bytes": 655_360,
                **fit,
            }
        ),
        notes=("SOFTMAX is extrapolated from one size.",),
    )


def make_history(n_exits=3, epochs=40):
    rng = np.random.default_rng(1)
    history = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 3 * np.exp(-epoch / 9) + 0.2, "val_loss": 3 * np.exp(-epoch / 9) + 0.4}
        for number in range(1, n_exits + 1):
            row[f"exit_{number:02d}_accuracy"] = 0.78 + 0.06 * number - 0.5 * np.exp(-epoch / 7)
            row[f"val_exit_{number:02d}_accuracy"] = (
                0.75 + 0.06 * number - 0.5 * np.exp(-epoch / 7) + rng.normal(0, 0.008)
            )
        history.append(row)
    return history


PHASES = (("backbone", {3}, 4), ("joint", {1, 2, 3}, 5), ("heads", {1, 2}, 1))
NAMES = [name for name, _, _ in PHASES]


def make_phase_history(phases=PHASES, n_exits=3):
    """Return rows as a run writes them: NaN for the training figures of exits that a phase does not run."""
    history = []
    for number, (_, trained, epochs) in enumerate(phases, start=1):
        for _ in range(epochs):
            epoch = len(history) + 1
            row = {"epoch": epoch, "phase": float(number), "loss": 2 / epoch, "val_loss": 3 / epoch}
            for exit_ in range(1, n_exits + 1):
                figures = (1 - exit_ / (9 * epoch), exit_ / epoch)
                for word, figure in zip(("accuracy", "loss"), figures, strict=True):
                    row[f"exit_{exit_:02d}_{word}"] = figure if exit_ in trained else float("nan")
                    row[f"val_exit_{exit_:02d}_{word}"] = figure
            history.append(row)
    return history


def make_training_cost(**changes):
    return [
        {
            "phase": name,
            "epochs": epochs,
            "steps": 110 * epochs,
            "windows": 7_040 * epochs,
            "forward_macs": 5_000_000_000_000 * epochs,
            "backward_macs": 9_000_000_000 * epochs,
            "measured_seconds": 1.5 * epochs,
            "measured_peak_memory_bytes": (1_100 + 10 * epochs) * 10**6,
            **(changes if name == "joint" else {}),
        }
        for name, _, epochs in PHASES
    ]


def make_arguments(simulation=None, **changes):
    simulation = make_simulation() if simulation is None else simulation
    qualities = zip(simulation.exits, simulation.balanced_accuracies, strict=True)
    return {
        "manifest": make_manifest(simulation),
        "simulation": simulation,
        "estimate": make_estimate(simulation),
        "history": make_history(len(simulation.exits)),
        "settings": {
            "data": "hapt",
            "backbone": "dscnn",
            "regime": "mixed",
            "seeds": [0, 1],
            "class_weight": None,
            "optimizer": {"name": "adam", "learning_rate": 0.001},
        },
        "float_quality": {
            "exits": [
                {"exit": name, "accuracy": value, "balanced_accuracy": min(1.0, value + 0.004)}
                for name, value in qualities
            ]
        },
        "parity": [
            {"engine": engine, "windows": 1000, "exit": name, "differing_elements": 0}
            for engine in ("litert", "tflm")
            for name in simulation.exits
        ],
        "versions": {"mexit-edge": "0.1.0", "numpy": "2.1.0"},
        **changes,
    }


class _Page(HTMLParser):
    """Collects what the tests ask: elements with attributes, text, and whether tags balance."""

    VOID = ("meta", "img", "source", "br", "link")

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.css = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.css if self.open and self.open[-1] == "style" else self.text).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def plain(text):
    """Return the text with every run of blanks, also non-breaking ones, as one blank."""
    return " ".join(text.split())


def words_of(page):
    return plain(" ".join(page.text))


def test_page_is_self_contained_and_small(drawn):
    html = drawn
    assert len(html.encode()) < 3_000_000
    page = _Page(html)
    assert not page.all("script")
    assert not page.all("link")
    for _, attrs in page.elements:
        for name in ("src", "srcset", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:image/svg+xml;base64,"))
    css = "".join(page.css)
    assert css
    assert "url(" not in css
    assert "@import" not in css
    uris = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    assert len(uris) == 2 * len(page.all("img")) == 2 * 11
    for uri in uris:
        for element in ElementTree.fromstring(base64.b64decode(uri)).iter():
            for key, value in element.attrib.items():
                if key.endswith("href"):
                    assert value.startswith("#")
                assert "url(http" not in value


def test_page_holds_every_section_in_order_with_alt_texts_and_titles(drawn):
    page = _Page(drawn)
    assert [attrs["id"] for attrs in page.all("section")] == SECTIONS
    assert [attrs["href"] for attrs in page.all("a")] == [f"#{name}" for name in SECTIONS]
    assert all(len(attrs["alt"]) > 30 for attrs in page.all("img"))
    assert all(attrs["media"].endswith("(prefers-color-scheme: dark)") for attrs in page.all("source"))
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == 1
    text = words_of(page)
    assert re.match(r"hapt-dscnn: [\d.]+ % of the MACs, balanced accuracy [\d.]+ % against", text)
    for expected in (
        "nucleo-l4r5zi with tflm-cmsis-nn, not measured",
        "SOFTMAX is extrapolated",
        "1 x 64 x 32: 2,048",
        "subjects 1, 3, 5, 7 windows 1,412",
        "learning_rate: 0.001",
        "class_weight not set",
        "upper 90 % bound of what is lost, gains not counted, windows taken as independent 0.94 points",
    ):
        assert expected in text


@pytest.mark.usefixtures("without_drawing")
def test_headline_and_tables_carry_the_simulations_figures():
    arguments = make_arguments()
    simulation = arguments["simulation"]
    text = words_of(_Page(render_page(**arguments)))
    interval = simulation.drop_interval
    assert (
        f"On 300 windows of subjects 2, 4, 6, 8, 10, 12, 14, 16, 18, the policy computes "
        f"{100 * simulation.mean_macs / simulation.full_macs:.1f} % of the full network's MACs" in text
    )
    assert (
        f"drop {100 * simulation.drop:.2f} points [{100 * interval.low:.2f}, {100 * interval.high:.2f}], "
        "95 % by subject bootstrap." in text
    )
    expected = arguments["estimate"].expected(simulation.exit_shares)
    assert plain(words.estimated(expected.estimated_latency_ms)) in text
    assert plain(words.estimated(arguments["estimate"].exits[1].estimated_energy_uj)) in text
    assert (
        f"oracle {100 * float(np.mean((simulation.predicted == simulation.y[:, None]).any(axis=1))):.1f} %"
        in text
    )
    for stage, invocations in zip(arguments["estimate"].stages, simulation.invocations, strict=True):
        assert f"{plain(words.estimated(stage.estimated_energy_uj))} {invocations:,}" in text


@pytest.mark.usefixtures("without_drawing")
def test_hindsight_stands_between_policy_and_oracle():
    simulation = make_simulation()
    gap = oracle_gap(simulation)
    html = render_page(**make_arguments(simulation))
    assert gap.sentence in words_of(_Page(html))
    rows = {row["exit"]: row for row in rows_of(html, "exit")}
    assert list(rows)[-3:] == ["policy", "hindsight", "oracle"]
    macs = [float(rows[name]["mean MACs"].replace(",", "")) for name in ("policy", "hindsight", "oracle")]
    assert macs == [round(value) for value in (gap.policy_macs, gap.hindsight_macs, gap.oracle_macs)]
    assert rows["hindsight"]["balanced accuracy"] == f"{100 * gap.hindsight_balanced_accuracy:.1f} %"
    against = {row["policy against"]: row for row in rows_of(html, "policy against")}
    share = 100 * gap.policy_macs / gap.hindsight_macs
    assert list(against["hindsight"].values())[2] == f"{share:.1f} %"
    without = {**make_arguments(simulation), "simulation": replace(simulation, has_policy=False)}
    assert "hindsight" not in render_page(**without)


def test_names_are_escaped_and_drawn_literally():
    nasty = "<script>alert(1)</script>"
    simulation = make_simulation(n=60, classes=(nasty, "$x^$", "_hidden"))
    arguments = make_arguments(
        simulation,
        settings={nasty: nasty},
        parity=[{"engine": nasty, "windows": 1, "exit": "exit_01", "differing_elements": 3}],
        versions={nasty: nasty},
        history=[{"epoch": 1, "exit_01_accuracy": 0.5}],
    )
    arguments["manifest"] = arguments["manifest"].model_copy(update={"name": nasty})
    html = render_page(**arguments)
    assert "<script" not in html
    assert "alert(1)" in html
    # Title, heading, setting and its value, engine, tool and its version.
    assert words_of(_Page(html)).count(nasty) == 7
    for uri in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html):
        assert b"<script" not in base64.b64decode(uri)
    names = [label.get_text().rpartition(" (")[0] for label in plot_exit_shares(simulation).get_yticklabels()]
    assert names == ["all windows", "<script>alert(1)</scr...", "$x^$", "_hidden"]


def rows_of(html, heading):
    """Return the body rows, each as heading -> cell, of the table whose first column has this heading."""
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        columns = [plain(column) for column in re.findall(r'<th scope="col">(.*?)</th>', table)]
        if columns[0] == heading:
            rows = re.findall(r"<tr[^>]*>(<th scope=\"row\">.*?)</tr>", table)
            cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
            return [dict(zip(columns, map(plain, row), strict=True)) for row in cells]
    raise AssertionError(heading)


@pytest.mark.usefixtures("without_drawing")
def test_unknown_arena_and_energy_say_unknown():
    simulation = make_simulation()
    html = render_page(
        **make_arguments(
            simulation,
            manifest=make_manifest(simulation, arena_bytes=None),
            estimate=make_estimate(simulation, has_energy=False, arena_bytes=None),
        )
    )
    stages = rows_of(html, "stage to")
    for column in ("TFLM arena bytes (64-bit host)", "estimated arena bytes (32-bit)"):
        assert [row[column] for row in stages] == ["unknown"] * 3
    assert "16,480" not in html
    assert "whether it fits is unknown" in plain(html)
    assert [row[ENERGY] for row in stages] == ["unknown"] * 3
    assert not any(row[LATENCY] == "unknown" for row in stages)
    assert [row[ENERGY] for row in rows_of(html, "exit")] == ["unknown"] * 6


@pytest.mark.usefixtures("without_drawing")
def test_an_unknown_latency_says_unknown_everywhere():
    simulation = make_simulation()
    html = render_page(**make_arguments(simulation, estimate=make_estimate(simulation, unknown=("UNIQUE",))))
    for heading, n_rows in (("stage to", 3), ("exit", 6)):
        rows = rows_of(html, heading)
        assert [(row[LATENCY], row[ENERGY]) for row in rows] == [("unknown", "unknown")] * n_rows


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ({}, "60,000 of 2,097,152 flash bytes; 16,480 of 655,360 RAM bytes, estimated for 32 bits"),
        ({}, "(14,432 the largest) with the boundaries (2,048 at most): it fits."),
        ({"device_flash_bytes": 59_000}, "it does not fit: 1,000 bytes of flash too many."),
        (
            {"device_flash_bytes": 59_000, "estimated_ram_bytes": 655_376},
            "it does not fit: 1,000 bytes of flash too many and 16 bytes of RAM too many.",
        ),
        ({"device_flash_bytes": 59_000, "estimated_ram_bytes": None}, "1,000 bytes of flash too many."),
    ],
)
def test_the_page_says_by_how_many_bytes_the_models_do_not_fit(fit, said):
    simulation = make_simulation()
    table = stages_table(make_manifest(simulation), simulation, make_estimate(simulation, **fit))
    assert said in table.caption


@pytest.mark.usefixtures("without_drawing")
def test_page_without_optional_parts_says_so():
    simulation = make_simulation()
    html = render_page(
        **make_arguments(
            simulation,
            manifest=make_manifest(simulation, calibrated=False),
            estimate=None,
            history=[],
            float_quality=None,
            parity=None,
        )
    )
    text = words_of(_Page(html))
    for expected in (
        "No training history was given.",
        "Not checked in this run.",
        "how these thresholds were set is unknown",
        "No estimate was made for a device",
    ):
        assert expected in text
    rows = rows_of(html, "exit")
    assert [row["balanced accuracy, float network"] for row in rows] == ["unknown"] * 3 + ["–"] * 3
    assert {row[LATENCY] for row in rows} == {"unknown"}


@pytest.mark.usefixtures("without_drawing")
def test_page_warns_of_shared_subjects_other_thresholds_and_one_subject():
    simulation = make_simulation(n_subjects=1)
    manifest = make_manifest(simulation)
    changed = manifest.policy.model_copy(update={"thresholds_int": (1, 2)})
    training = manifest.training.model_copy(update={"train_subjects": (2, 4)})
    text = words_of(
        _Page(
            render_page(
                **make_arguments(
                    simulation, manifest=manifest.model_copy(update={"policy": changed, "training": training})
                )
            )
        )
    )
    assert "The test windows share subject 2 with the training set: quality is overstated." in text
    assert "with the calibration set" not in text
    assert "other thresholds than the manifest holds" in text
    assert "(interval unknown: one subject)" in text


@pytest.mark.usefixtures("without_drawing")
def test_one_exit_and_many_exits():
    one = render_page(**make_arguments(make_simulation(n_exits=1)))
    assert "there is no threshold" in one
    many = make_simulation(n=120, n_exits=6, classes=("a", "b"))
    html = render_page(**make_arguments(many, history=[]))
    assert "Drawn for exit_01, exit_02, exit_04, exit_05, exit_06 and the policy" in words_of(_Page(html))
    assert len(rows_of(html, "exit")) == 9
    assert pictured_exits(3) == [1, 2, 3]


def test_page_is_reproducible(drawn):
    assert render_page(**make_arguments()) == drawn


def test_drawing_leaves_matplotlib_as_it_was():
    # In a process of its own: another test may have imported pyplot or changed the settings.
    code = """
import sys
import matplotlib
from matplotlib.figure import Figure
from mexit_edge.report.theme import picture
kept = [key for key in matplotlib.rcParams if key != "backend"]
before = {key: matplotlib.rcParams[key] for key in kept}
made = picture(lambda: Figure().add_subplot(), "alt", "caption")
assert made.light != made.dark
assert {key: matplotlib.rcParams[key] for key in kept} == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("without_drawing")
def test_write_page_never_overwrites_unasked(tmp_path):
    path = tmp_path / "page.html"
    arguments = make_arguments()
    assert write_page(path, **arguments) == path
    first = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_page(path, **arguments)
    write_page(path, **{**arguments, "settings": {"other": 1}}, overwrite=True)
    assert path.read_bytes() != first


def test_page_refuses_another_bundles_simulation():
    arguments = make_arguments()
    other = replace(arguments["simulation"], stage_macs=(1, 2, 3))
    with pytest.raises(InputError, match="`simulation` must be of the manifest's bundle"):
        render_page(**{**arguments, "simulation": other})


def test_figures_return_axes_and_draw_on_the_axes_given():
    from matplotlib.figure import Figure

    simulation = make_simulation()
    for plot in (
        lambda ax: plot_tradeoff(simulation, ax, float_points=[0.8, 0.9, 0.95]),
        lambda ax: plot_exit_shares(simulation, ax),
        lambda ax: plot_confusion(simulation, 2, ax),
        lambda ax: plot_confusion(simulation, "policy", ax),
        lambda ax: plot_reliability(simulation, 3, ax),
        lambda ax: plot_training(make_history(), "loss", ax),
    ):
        ax = Figure().add_subplot()
        assert plot(ax) is ax
        assert ax.has_data()
        assert isinstance(plot(None), axes_module.Axes)


def test_tradeoff_marks_policy_and_labels_exits():
    simulation = make_simulation()
    ax = plot_tradeoff(simulation)
    assert [text.get_text() for text in ax.texts] == list(simulation.exits)
    policy = next(line for line in ax.lines if line.get_label() == "policy")
    assert policy.get_xydata().tolist() == [
        [simulation.mean_macs / 1e3, 100 * simulation.policy_balanced_accuracy]
    ]
    with pytest.raises(InputError, match="one value per exit"):
        plot_tradeoff(simulation, float_points=[0.5])


def test_exit_shares_add_up_per_class():
    simulation = make_simulation(n=500)
    ax = plot_exit_shares(simulation)
    widths = np.asarray([[bar.get_width() for bar in bars] for bars in ax.containers])
    assert widths.shape == (3, 7)
    np.testing.assert_allclose(widths.sum(axis=0), 100)
    np.testing.assert_allclose(widths[:, 0], 100 * np.asarray(simulation.exit_shares))
    of_class = simulation.exit[simulation.y == 2]
    np.testing.assert_allclose(widths[0, 3], 100 * np.mean(of_class == 1))


@pytest.mark.parametrize("n_classes", [2, 6, 12])
def test_confusion_counts_every_window(n_classes):
    simulation = make_simulation(classes=tuple(f"a_long_class_name_{k:02d}" for k in range(n_classes)))
    ax = plot_confusion(simulation, 1)
    counts = [int(text.get_text().split("\n")[-1].replace(",", "")) for text in ax.texts]
    assert sum(counts) == len(simulation)
    right = [
        int(text.get_text().split("\n")[-1])
        for text in ax.texts
        if text.get_position()[0] == text.get_position()[1]
    ]
    assert sum(right) / len(simulation) == pytest.approx(simulation.accuracies[0])
    shares = np.asarray(ax.collections[0].get_array()).reshape(n_classes, n_classes)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_absent_class_and_few_windows_are_drawn():
    simulation = make_simulation(n=7)
    simulation = replace(simulation, y=np.zeros(7, np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ax in (
            plot_exit_shares(simulation),
            plot_confusion(simulation, 1),
            plot_reliability(simulation, 1),
        ):
            ax.figure.draw_without_rendering()


def test_reliability_bins_make_up_the_calibration_error():
    simulation = make_simulation(n=1000)
    confidence, accuracy, size = reliability_bins(simulation, 2)
    assert len(size) == 15
    assert np.average(np.abs(confidence - accuracy), weights=size) == pytest.approx(
        simulation.calibration_error(2)
    )
    assert f"ECE {simulation.calibration_error(2):.3f}" in plot_reliability(simulation, 2).get_title()


@pytest.mark.parametrize("number", [0, 4, -1, "last"])
def test_no_such_exit_is_refused(number):
    for plot in (plot_confusion, plot_reliability):
        with pytest.raises(InputError, match="`exit_number` must be from 1 to 3"):
            plot(make_simulation(n=60), number)


def test_training_curves_leave_gaps_and_refuse_what_is_not_there():
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": None, "val_loss": 1.5}]
    ax = plot_training(history, "loss")
    curves = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert curves["total, training"][0] == 2.0
    assert np.isnan(curves["total, training"][1])
    assert np.isnan(curves["total, validation"][0])
    with pytest.raises(InputError, match="`history` must hold a key that ends in 'accuracy'"):
        plot_training(history)


@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_training_figure_shows_phases_and_gaps(quantity):
    ax = plot_training(make_phase_history(), quantity, phase_names=NAMES)
    curves = {line.get_label(): line for line in ax.lines}
    drawn = {name: np.flatnonzero(np.isfinite(line.get_ydata())).tolist() for name, line in curves.items()}
    assert drawn["exit_01, training"] == drawn["exit_01, validation"] == [4, 5, 6, 7, 8, 9]
    assert drawn["exit_03, training"] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert drawn["exit_03, validation"] == list(range(10))
    boundaries = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
    assert boundaries == [4.5, 9.5]
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == list(
        zip(NAMES, [1, 4.5, 9.5], strict=True)
    )
    assert {line.get_color() for line in ax.lines if len(line.get_xdata()) == 2} == {
        matplotlib.rcParams["xtick.color"]
    }
    ax.figure.draw_without_rendering()


def test_phases_without_names_are_numbered_and_one_phase_has_no_mark():
    history = make_phase_history()
    assert [text.get_text() for text in plot_training(history).texts] == ["phase 1", "phase 2", "phase 3"]
    one = plot_training([{**row, "phase": 1.0} for row in make_history()], phase_names=["joint"])
    assert not one.texts
    assert all(len(line.get_xdata()) == 40 for line in one.lines)


def test_a_single_epoch_between_gaps_is_a_point():
    phases = (("block_01", {1}, 1), ("block_02", {2}, 3), ("block_03", {3}, 1))
    ax = plot_training(make_phase_history(phases))
    marked = {line.get_label(): line.get_markevery() for line in ax.lines if line.get_marker() == "o"}
    assert marked == {"exit_01, training": [0], "exit_03, training": [4], "exit_03, validation": [4]}


@pytest.mark.parametrize("epochs", [(1, 40, 1), (14, 13, 14), (1, 1, 1)])
def test_names_of_phases_keep_apart_inside_the_figure(epochs):
    phases = tuple((name, exits, n) for (name, exits, _), n in zip(PHASES, epochs, strict=True))
    ax = plot_training(make_phase_history(phases), phase_names=NAMES)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 3
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert box.x1 <= ax.figure.bbox.x1
        assert box.y1 <= ax.figure.bbox.y1


def test_training_of_numbers_unknown_everywhere_is_refused():
    with pytest.raises(InputError, match="`history` must hold a key that ends in 'loss', and a number"):
        plot_training([{"epoch": 1, "loss": float("nan"), "val_loss": None}], "loss")


def test_page_with_phases_tells_where_they_begin_and_what_they_cost():
    arguments = make_arguments(history=make_phase_history(), training_cost=make_training_cost())
    html = render_page(**arguments)
    page = _Page(html)
    alts = [attrs["alt"] for attrs in page.all("img")]
    expected = "Phases: backbone from epoch 1, joint from epoch 5, heads from epoch 10."
    assert sum(alt.endswith(expected) for alt in alts) == 2
    assert "nan" not in words_of(page).lower().split()
    section = html.partition('<section id="training">')[2].partition("</section>")[0]
    assert "<h3>Training cost</h3>" in section
    assert "forward and backward passes of the training steps; validation is not included" in section
    rows = {row["phase"]: row for row in rows_of(section, "phase")}
    assert list(rows) == [*NAMES, "total"]
    assert list(rows["joint"].values())[1:] == ["5", "550", "35,200", "25.00 T", "45.00 G", "7.50", "1,150"]
    assert list(rows["total"].values())[1:] == [
        "10",
        "1,100",
        "70,400",
        "50.00 T",
        "90.00 G",
        "15.0",
        "1,150",
    ]


@pytest.mark.usefixtures("without_drawing")
def test_the_cost_table_tells_several_trainings_apart():
    names = ("fold_01", "fold_02", "refit")
    cost = [{"training": name, **row} for name in names for row in make_training_cost()]
    html = render_page(**make_arguments(training_cost=cost))
    rows = rows_of(html, "training")
    assert [row["training"] for row in rows] == [*np.repeat(names, len(NAMES)), "total"]
    assert [row["phase"] for row in rows] == [*NAMES * len(names), ""]
    assert [rows[-1][name] for name in ("epochs", "steps", "forward MACs")] == ["30", "3,300", "150.00 T"]
    one = render_page(**make_arguments(training_cost=cost[: len(NAMES)]))
    assert [row["phase"] for row in rows_of(one, "phase")] == [*NAMES, "total"]


@pytest.mark.usefixtures("without_drawing")
def test_unknown_training_cost_makes_the_total_unknown():
    changes = {"backward_macs": None, "measured_peak_memory_bytes": None}
    html = render_page(**make_arguments(training_cost=make_training_cost(**changes)))
    rows = {row["phase"]: row for row in rows_of(html, "phase")}
    unknown = {
        phase: [name for name, cell in row.items() if cell == "unknown"] for phase, row in rows.items()
    }
    missing = ["backward MACs", "measured peak memory, MB"]
    assert unknown == {"backbone": [], "joint": missing, "heads": [], "total": missing}
    assert "Training cost" not in render_page(**make_arguments())


@pytest.mark.usefixtures("without_drawing")
def test_settings_show_options_of_the_regime_and_cross_fitting(tmp_path):
    settings = {"regime": "mixed", "options": {"shares": [1, 2], "label_smoothing": 0.1}, "cross_fit": 5}
    path = write_page(
        tmp_path / "page.html",
        **make_arguments(settings=settings, training_cost=make_training_cost()),
    )
    html = path.read_text("utf-8")
    shown = {row["setting"]: row["value"] for row in rows_of(html, "setting")}
    assert shown == {"regime": "mixed", "options": "shares: 1, 2; label_smoothing: 0.1", "cross_fit": "5"}
    assert rows_of(html, "phase")[-1]["phase"] == "total"
    html = render_page(**make_arguments(settings={"options": {}, "cross_fit": None}))
    assert [row["value"] for row in rows_of(html, "setting")] == ["none", "not set"]


def test_missing_matplotlib_and_jinja2_name_the_extra(monkeypatch):
    arguments = make_arguments()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"jinja2.*mexit-edge\[report\]"):
        render_page(**arguments)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    simulation = arguments["simulation"]
    for draw in (
        lambda: plot_tradeoff(simulation),
        lambda: plot_exit_shares(simulation),
        lambda: plot_confusion(simulation, "policy"),
        lambda: plot_reliability(simulation, 1),
        lambda: plot_training(make_history()),
        lambda: render_page(**arguments),
    ):
        with pytest.raises(MissingExtraError, match=r"matplotlib.*mexit-edge\[report\]"):
            draw()


def test_nothing_heavy_is_imported_with_the_room():
    code = (
        "import sys, mexit_edge.report; "
        "print([m for m in ('matplotlib', 'jinja2', 'tensorflow', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_words():
    assert words.points(-0.00001) == "0.00"
    assert words.points(-0.0123) == "-1.23"
    assert words.numbers([9, 1, 2, 5, 6, 7, 7]) == "1, 2, 5-7, 9"
    assert words.subjects([3]) == "subject 3"
    assert words.estimated(None) == words.count(None) == words.percent(None) == "unknown"
    assert words.estimated(Estimate(1234.0, 12.34, 0.5e4)) == "1,234 [12.3,\N{NO-BREAK SPACE}5,000]"
    assert words.macs(1_250_000) == "1.25\N{NO-BREAK SPACE}M"
    assert words.macs(2e12) == "2.00\N{NO-BREAK SPACE}T"
    assert words.macs(None) == "unknown"
    assert words.setting([1, None, True]) == "1, not set, yes"


@pytest.mark.usefixtures("without_drawing")
def test_page_says_when_other_networks_set_the_thresholds():
    simulation = make_simulation()
    manifest = make_manifest(simulation)
    facts = manifest.policy.calibration.model_dump() | {"kind": "out_of_fold", "folds": 5, "engine": None}
    policy = manifest.policy.model_copy(update={"calibration": Calibration(**facts)})
    changed = manifest.model_copy(update={"policy": policy})
    pages = [render_page(**make_arguments(simulation, manifest=one)) for one in (manifest, changed)]
    held_out, out_of_fold = (words_of(_Page(page)) for page in pages)
    assert "fold" not in held_out
    assert "windows 1,412 engine tflm cost" in held_out
    for expected in (
        "windows 1,412 logits out-of-fold, of 5 float networks cost",
        "thresholds were set on out-of-fold logits of 5 fold networks",
        "guarantee nothing for the refitted network",
        "those of 5 folds: only the test windows tell what the policy loses here.",
    ):
        assert expected in out_of_fold, expected
    assert [row["value"] for row in rows_of(pages[1], "calibration")].count("None") == 0

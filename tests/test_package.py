"""The package as a whole: what an import loads, what it offers, and what is installed with it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata, resources

import pytest

import mexit_edge as mx

TRAINING = {"tensorflow", "keras", "tf_keras", "tensorflow_model_optimization"}
HEAVY = TRAINING | {
    "numpy",
    "scipy",
    "sklearn",
    "pandas",
    "matplotlib",
    "jinja2",
    "ai_edge_litert",
    "pydantic",
}
NEEDS_TENSORFLOW = {"MultiExitModel", "analysis", "attach_exits", "compress", "export", "models", "regimes"}
ROOMS_WITHOUT_TENSORFLOW = (
    *("errors", "files", "signals", "exits", "bundle", "tflite", "runtime", "estimate", "simulate"),
    *("data", "cli"),
)


def python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where nothing is loaded yet."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that are loaded after this code."""
    listing = "\nimport sys\nprint('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    done = python(code + listing)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("LOADED ", 1)[1].split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by("import mexit_edge")
    assert "mexit_edge" in loaded
    assert not loaded & HEAVY


def test_the_help_of_the_command_line_loads_nothing_heavy():
    loaded = loaded_by(
        "import sys\nsys.argv = ['mexit', '--help']\nfrom mexit_edge.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_the_runtime_loads_no_tensorflow():
    loaded = loaded_by("from mexit_edge.runtime import Runtime")
    assert "numpy" in loaded
    assert not loaded & (HEAVY - {"numpy", "pydantic", "ai_edge_litert"})


def test_no_room_below_the_models_loads_tensorflow():
    loaded = loaded_by("\n".join(f"import mexit_edge.{room}" for room in ROOMS_WITHOUT_TENSORFLOW))
    assert not loaded & TRAINING


def test_importing_warns_of_nothing_and_prints_nothing():
    done = python("import mexit_edge", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", sorted(set(mx.__all__) - NEEDS_TENSORFLOW))
def test_a_public_name_resolves(name):
    assert getattr(mx, name) is not None


@pytest.mark.train
def test_every_public_name_resolves_with_the_training_extra():
    pytest.importorskip("keras")
    done = python(
        "import mexit_edge as mx\nfor name in mx.__all__: print(name, getattr(mx, name) is not None)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} True" for name in mx.__all__]


@pytest.mark.parametrize(
    ("name", "room"), [("Bundle", "bundle"), ("Sensor", "signals"), ("Runtime", "runtime")]
)
def test_a_public_name_is_that_of_its_room(name, room):
    assert getattr(mx, name) is getattr(importlib.import_module(f"mexit_edge.{room}"), name)


def test_public_names_are_listed_once_in_order_and_shown_by_dir():
    assert mx.__all__ == sorted(set(mx.__all__))
    assert dir(mx) == mx.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mexit_edge' has no attribute 'nothing'"):
        _ = mx.nothing
    with pytest.raises(ImportError):
        exec("from mexit_edge import nothing")


def test_simulate_can_be_called_before_and_after_its_room_is_loaded():
    # Importing the room binds its name over the function of the same name.
    done = python(
        "import mexit_edge as mx\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        mx.simulate('no bundle', 'no windows')\n"
        "    except (AttributeError, ValueError) as error:\n"
        "        print('called')\n"
    )
    assert done.stdout.split() == ["called", "called"], done.stderr


def test_the_package_ships_its_types():
    assert (resources.files("mexit_edge") / "py.typed").is_file()


def test_the_version_is_that_of_the_installed_package():
    assert mx.__version__ == metadata.version("mexit-edge")


def test_the_base_install_has_no_training_package():
    needed = [line.lower() for line in metadata.requires("mexit-edge") or () if "extra ==" not in line]
    assert any(line.startswith("numpy") for line in needed)
    assert not [line for line in needed if line.startswith(("tensorflow", "keras", "tf-keras", "tf_keras"))]


def test_the_command_is_installed():
    (command,) = metadata.entry_points(group="console_scripts", name="mexit")
    assert command.value == "mexit_edge.cli:main"

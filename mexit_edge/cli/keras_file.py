"""Read a .keras file that a command is given."""

from __future__ import annotations

import errno
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from mexit_edge.errors import InputError, MissingExtraError
from mexit_edge.runtime import CaughtStderr

MAX_BYTES = 256 << 20
NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
# Layers of this package register themselves with Keras when these modules are loaded.
REGISTERING = ("mexit_edge.models", "mexit_edge.regimes", "mexit_edge.compress.fake_quant")


def load_saved(path: Path, argument: str) -> Any:
    """Return what a .keras file holds: a functional network, or a `MultiExitModel` with one.

    Code in the file is not run: Keras' safe mode stays on.

    Args:
        path: of the file.
        argument: of the command, for the message.

    Raises:
        InputError: as for `check_saved`, or it holds no functional network, Python code or unknown layers.
        MissingExtraError: TensorFlow is not installed.
    """
    check_saved(path, argument)
    # TensorFlow writes notices about absent GPUs past Python's streams, whatever its log level says.
    with CaughtStderr():
        return _loaded(path, argument)


def check_saved(path: Path, argument: str) -> None:
    """Check what can be checked of a .keras file without TensorFlow.

    Args:
        path: of the file.
        argument: of the command, for the message.

    Raises:
        InputError: it is none, or unpacks to more than 256 MiB.
        MissingExtraError: TensorFlow is not installed.
    """
    try:
        with ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, BadZipFile, NotImplementedError, ValueError) as error:
        # The error tells: looking again fails on a name that is too long.
        what = "no such file" if getattr(error, "errno", None) in NO_SUCH_FILE else "something else"
        raise InputError(
            f"`{argument}` must be a .keras file, as `model.save` writes it. Received: {path}, {what}."
        ) from error
    if size > MAX_BYTES:
        raise InputError(
            f"`{argument}` must be a .keras file that unpacks to at most {MAX_BYTES:,} bytes. "
            f"Received: {path} with {size:,}."
        )
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise MissingExtraError("TensorFlow", "train")


def _loaded(path: Path, argument: str) -> Any:
    import keras

    for module in REGISTERING:
        import_module(module)
    from mexit_edge.models.layer_calls import functional_graph

    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras raises whatever the first thing it cannot read raises.
        raise InputError(
            f"`{argument}` must be a .keras file that can be read without running code in it. "
            f"Received: {path}: {_reason(error)}"
        ) from error
    network = getattr(loaded, "network", loaded)
    if functional_graph(network) is None:
        raise InputError(
            f"`{argument}` must hold a functional (or Sequential, built) network. Received: {path} with a "
            f"{type(loaded).__name__}. Build it with `keras.Model(inputs, outputs)`."
        )
    return loaded


def _reason(error: Exception) -> str:
    text = str(error)
    if "Lambda" in text:
        return "a Lambda layer, which is Python code. Use a layer or `keras.ops` in its place."
    unknown = re.search(r"Could not locate (?:class|function|object) '([^']*)'", text)
    if unknown:
        return (
            f"{unknown[1]!r}, which is not registered here. Inspect the network in Python, with "
            "`mexit_edge.models.layer_table`."
        )
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no reason given'}"

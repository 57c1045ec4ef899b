"""What Arm's compiler for the Ethos-U expects of a model: its own estimates, labelled as such.

Vela (ethos-u-vela) compiles the operators that the NPU takes and prints cycles from a model of the NPU and of
its memories. It says of them that they are internal estimates of the compiler, and that figures of
performance need an FVP model or an FPGA. Hence the names that begin with ``compiler_``: they are neither the
estimates of this package nor measurements.

Vela is never imported here. It is a large extension in C++ that crashes on some files, and runs in a process
of its own.
"""

from __future__ import annotations

import configparser
import csv
import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from mexit_edge.errors import InputError, MissingExtraError, RunError, unknown_name
from mexit_edge.files import read_from_folder
from mexit_edge.tflite import Graph

# The choices of Vela 5's --accelerator-config: family and multiply-accumulates per cycle.
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
TIMEOUT_S = 600
MAX_OUTPUT_BYTES = 256 << 20
# How a compiled model calls the NPU.
NPU_OPERATOR = "custom:ethos-u"


@dataclass(frozen=True)
class EthosULayer:
    """One operation of the compiled model. An operator of the model becomes one or several.

    Args:
        name: of a tensor of the model, as far as the compiler knows one.
        operator: of the model that it was made of, in the compiler's spelling.
        target: what runs it.
        compiler_cycles: the compiler's estimate; 0 of one that is fused into the one before it, None on the
            CPU, of which the compiler knows nothing.
        macs: multiply-accumulates as the compiler counts them, None on the CPU.
    """

    name: str
    operator: str
    target: Literal["NPU", "CPU"]
    compiler_cycles: float | None
    macs: int | None


@dataclass(frozen=True)
class EthosUEstimate:
    """What the compiler expects of one run of one model. It states no interval, and no energy.

    Args:
        accelerator: family of the NPU and its multiply-accumulates per cycle.
        system_config: name of clock and memories in the compiler's configuration file.
        memory_mode: name of what stands in which memory, from the same file.
        vela_version: of the compiler.
        core_clock_mhz: of the NPU in this system.
        compiler_cycles: the compiler's estimate of all that the NPU runs.
        compiler_latency_ms: these cycles at the clock.
        sram_bytes: largest use of SRAM at one time.
        dram_bytes: largest use of DRAM, in systems that have it; the constants may stand there.
        flash_bytes: the NPU's constants in flash, without its commands. With ``Sram_Only`` they stand in
            memory as fast as SRAM, beside `sram_bytes`.
        compiled_model_bytes: size of the compiled .tflite, commands and what is left to the CPU included.
        npu_macs: multiply-accumulates as the compiler counts them, pooling, reductions and copies included.
        layers: in the compiler's order. Its older core lists no operator of the CPU.
        cpu_operators: TFLite names, once per operator, of what is left to the CPU, whose time is unknown.
        notes: what these figures are.
    """

    accelerator: str
    system_config: str
    memory_mode: str
    vela_version: str
    core_clock_mhz: float
    compiler_cycles: float
    compiler_latency_ms: float
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    compiled_model_bytes: int
    npu_macs: int
    layers: tuple[EthosULayer, ...]
    cpu_operators: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the NPU runs the whole model, so that cycles and latency are of all of it."""
        return not self.cpu_operators


def estimate_ethos_u(
    content: bytes,
    accelerator: str = "ethos-u55-128",
    *,
    system_config: str = "Ethos_U55_Deep_Embedded",
    memory_mode: str = "Shared_Sram",
) -> EthosUEstimate:
    """Compile a model for an Ethos-U and return what the compiler expects of it.

    Args:
        content: an int8 or int16 .tflite, not compiled for the NPU yet.
        accelerator: one of `ACCELERATORS`.
        system_config: clock and memories, a name in the compiler's own Arm/vela.ini for this family of NPU.
        memory_mode: what stands in which memory, a name in the same file.

    Raises:
        InputError: the model is damaged or compiled already, a name is unknown, the memory mode does not fit
            the system, or the NPU takes no operator of the model.
        MissingExtraError: Vela is not installed.
        RunError: Vela failed, took longer than ten minutes, or wrote what cannot be read.
    """
    if accelerator not in ACCELERATORS:
        raise unknown_name("accelerator", accelerator, ACCELERATORS)
    config_file = _config_file()
    _refuse_unknown_names(config_file, accelerator, system_config, memory_mode)
    if NPU_OPERATOR in _operators(content):
        raise InputError(
            "`content` must be a model that is not compiled for the NPU yet. "
            f"Received: one with the operator {NPU_OPERATOR}. Use the model that it was made of."
        )
    with tempfile.TemporaryDirectory(prefix="mexit-ethos-u-") as folder:
        workshop = Path(folder)
        (workshop / "model.tflite").write_bytes(content)
        _run_vela(workshop, config_file, accelerator, system_config, memory_mode)
        model = _output(workshop, "model_vela.tflite")
        summary = _output(workshop, f"model_summary_{system_config}.csv").decode("utf-8", "replace")
        per_layer = _output(workshop, "model_per-layer.csv").decode("utf-8", "replace")
    return parse_estimate(
        summary, per_layer, model, accelerator=accelerator, vela_version=version("ethos-u-vela")
    )


def parse_estimate(
    summary: str, per_layer: str, compiled_model: bytes, *, accelerator: str, vela_version: str
) -> EthosUEstimate:
    """Read what Vela wrote, by the names of the columns: its two cores write different tables.

    Args:
        summary: text of its ..._summary_....csv.
        per_layer: text of its ..._per-layer.csv.
        compiled_model: its ..._vela.tflite, which says in all versions what is left to the CPU.
        accelerator: as for the estimate.
        vela_version: as for the estimate.

    Raises:
        InputError: the NPU takes no operator of the model.
        RunError: a column is missing, or holds no number.
    """
    operators = _operators(compiled_model)
    cpu_operators = tuple(name for name in operators if name != NPU_OPERATOR)
    if len(cpu_operators) == len(operators):
        raise InputError(
            f"`content` must hold an operator that {accelerator} takes. "
            f"Received: {', '.join(dict.fromkeys(cpu_operators))}, all left to the CPU. "
            "The NPU takes int8 and int16 models: quantize it."
        )
    notes = [
        f"Cycles and latency are the own estimates of the compiler, ethos-u-vela {vela_version}: no "
        "measurements. It states no interval, and no energy."
    ]
    if cpu_operators:
        notes.append(
            f"Left to the CPU and not in cycles and latency: {', '.join(dict.fromkeys(cpu_operators))}."
        )
    try:
        row = next(csv.DictReader(io.StringIO(summary, newline="")), {})
        return EthosUEstimate(
            accelerator=accelerator,
            system_config=row["system_config"],
            memory_mode=row["memory_mode"],
            vela_version=vela_version,
            core_clock_mhz=float(row["core_clock"]) / 1e6,
            compiler_cycles=float(row["cycles_total"]),
            compiler_latency_ms=float(row["inference_time"]) * 1e3,
            sram_bytes=_bytes(row["sram_memory_used"]),
            dram_bytes=_bytes(row["dram_memory_used"]),
            flash_bytes=_bytes(row["on_chip_flash_memory_used"]) + _bytes(row["off_chip_flash_memory_used"]),
            compiled_model_bytes=len(compiled_model),
            npu_macs=int(row["nn_macs"]),
            layers=_layers(per_layer),
            cpu_operators=cpu_operators,
            notes=tuple(notes),
        )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(
            f"Vela's tables must hold the known columns. Received: {error!r}, from ethos-u-vela "
            f"{vela_version}. Install a version that is known to work: pip install 'mexit-edge[ethos-u]'."
        ) from error


def _bytes(kibibytes: str) -> int:
    return round(float(kibibytes) * 1024)


def _layers(table: str) -> tuple[EthosULayer, ...]:
    """Read the table of layers. Names come last, and hold any character.

    The present core writes them without quotes, commas included; the older one with quotes, and its header
    once more before each part of the model that the NPU runs.
    """
    text = io.StringIO(table, newline="")
    present = table.startswith("Original Operator,")
    operator = "Original Operator" if present else "TFLite_operator"
    header, *rows = csv.reader(text, quoting=csv.QUOTE_NONE) if present else csv.reader(text)
    last = len(header) - 1
    layers = []
    for row in rows:
        if row == header:
            continue
        fields = dict(zip(header, [*row[:last], ",".join(row[last:])], strict=True))
        on_cpu = fields.get("Target", "NPU") == "CPU"
        layers.append(
            EthosULayer(
                name=fields["Name"],
                operator=fields[operator],
                target="CPU" if on_cpu else "NPU",
                compiler_cycles=None if on_cpu else float(fields["Op Cycles"]),
                macs=None if on_cpu else int(fields["MAC Count"]),
            )
        )
    return tuple(layers)


def _config_file() -> Path:
    spec = find_spec("ethosu")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place).absolute() / "config_files" / "Arm" / "vela.ini"
        if path.is_file():
            return path
    raise MissingExtraError("ethos-u-vela (Arm's compiler for the Ethos-U)", "ethos-u")


def _refuse_unknown_names(config_file: Path, accelerator: str, system_config: str, memory_mode: str) -> None:
    config = configparser.ConfigParser()
    config.read(config_file, encoding="utf-8")
    sections = [name.partition(".") for name in config.sections()]
    # Vela takes the clock and memories of another family without a word.
    family = accelerator.rpartition("-")[0].replace("-", "_").title() + "_"
    systems = [name for kind, _, name in sections if kind == "System_Config" and name.startswith(family)]
    if system_config not in systems:
        raise unknown_name("system_config", system_config, systems)
    modes = [name for kind, _, name in sections if kind == "Memory_Mode"]
    if memory_mode not in modes:
        raise unknown_name("memory_mode", memory_mode, modes)


def _operators(content: bytes) -> list[str]:
    return [operator.name for operator in Graph(content).operators]


def _run_vela(
    workshop: Path, config_file: Path, accelerator: str, system_config: str, memory_mode: str
) -> None:
    command = [
        *(sys.executable, "-m", "ethosu.vela", "model.tflite", "--output-dir", ".", "--verbose-performance"),
        *("--accelerator-config", accelerator, "--config", str(config_file)),
        *("--system-config", system_config, "--memory-mode", memory_mode),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=workshop,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise RunError(
            f"Vela needs a child process. Received: {error}. Check that this Python can start another."
        ) from error
    except subprocess.TimeoutExpired:
        raise RunError(f"Vela did not finish within {TIMEOUT_S} seconds.") from None
    if done.returncode == 0:
        return
    last_words = (done.stderr.strip() or done.stdout.strip())[-400:] or "none"
    if "ConfigOptionError" in last_words:
        raise InputError(
            f"`memory_mode` must fit `system_config`. Received: {memory_mode!r} with {system_config!r}, of "
            f"which Vela says: {last_words.splitlines()[-1]}. Dedicated_Sram needs a system with DRAM."
        )
    ending = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
    raise RunError(f"Vela failed ({ending}). Its last words: {last_words}")


def _output(workshop: Path, name: str) -> bytes:
    try:
        return read_from_folder(workshop, name, MAX_OUTPUT_BYTES)
    except InputError as error:
        raise RunError(f"Vela must write {name}. {error}") from error

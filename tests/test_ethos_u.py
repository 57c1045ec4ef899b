"""What Vela expects on an Ethos-U: its tables, its refusals, a stand-in for it, and one real run."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fixtures_networks import HandModel
from hypothesis import given
from hypothesis import strategies as st

from mexit_edge.errors import InputError, MissingExtraError, RunError
from mexit_edge.estimate import ethos_u
from mexit_edge.estimate.ethos_u import EthosUEstimate, EthosULayer, estimate_ethos_u, parse_estimate

REFERENCE = Path(__file__).parents[1] / "tflite_models" / "reference.mexit"
SUMMARY = """\
experiment,network,accelerator_configuration,system_config,memory_mode,core_clock,inference_time,\
sram_memory_used,dram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used,nn_macs,cycles_npu,\
cycles_total
default,model,Ethos_U55_128,Ethos_U55_Deep_Embedded,Shared_Sram,200000000.0,1.5e-05,1.75,0.0,0.0,3.21875,\
49000,2500,3000
"""
# As the present core writes it: no quotes, and what is left to the CPU is listed.
HEADER = (
    "Original Operator,NNG Operator,Target,Staging Usage,Peak% (Staging),Op Cycles,Network% (cycles),NPU,"
    "SRAM AC,DRAM AC,OnFlash AC,OffFlash AC,MAC Count,Network% (MAC),Util% (MAC),Name"
)
LAYERS = f"""{HEADER}
Conv2D,Conv2D,NPU,1792,100.0,1952,65.1,1600,512,0,0,1952,43008,87.7,17.2,relu;conv
Conv2D,Relu,NPU,0,0.0,0,0.0,0,0,0,0,0,0,0.0,100,relu;conv
Cumsum,Passthrough,CPU,0,0.0,0,0.0,0,0,0,0,0,0,0.0,100,one,"two
FullyConnected,FullyConnected,NPU,1104,61.6,1048,34.9,159,11,0,0,1048,5992,12.2,0.2,<unnamed>
"""
# As the older core does: quotes, fractions, two columns of one name, the header before each part on the NPU.
OLD_HEADER = (
    "TFLite_operator,NNG Operator,SRAM Usage,Peak%,Op Cycles,Network%,NPU,SRAM AC,DRAM AC,OnFlash AC,"
    "OffFlash AC,MAC Count,Network%,Util%,Name"
)
OLD_LAYERS = f"""{OLD_HEADER}\r
CONV_2D,Conv2DBias,2752,89.5,1951.5,65.0,1951.5,512.0,0.0,0.0,0.0,43008,87.7,11.1,"relu,conv"\r
{OLD_HEADER}\r
FULLY_CONNECTED,FullyConnected,1104,35.9,1048.0,35.0,106.0,11.0,0.0,0.0,1048.0,5992,12.2,0.2,\r
"""
CONFIG = """\
; of the stand-in
[System_Config.Ethos_U55_Deep_Embedded]
core_clock=200e6
[System_Config.Ethos_U85_SYS_DRAM_Low]
core_clock=500e6
[Memory_Mode.Shared_Sram]
const_mem_area=Axi1
[Memory_Mode.Dedicated_Sram]
const_mem_area=Axi1
"""


def additions(*, dtype: str = "INT8", in_between: str = "") -> bytes:
    """A model of two additions, with one more operator between them on request."""
    model = HandModel()
    scale = None if dtype == "FLOAT32" else 0.1
    window = model.window((1, 4, 4), dtype=dtype, scale=scale)
    found = model.add(window, window, dtype, scale=scale)
    if in_between:
        axis = model.tensor([1], "INT32", values=[1], scale=None)
        found = model.operator(in_between, [found, axis], model.tensor((1, 4, 4)))
    return model.finish({"exit_01": model.add(found, window, dtype, scale=scale)})


def compiled(*left: str) -> bytes:
    """What Vela makes of a model: a call of the NPU, then what it leaves to the CPU."""
    model = HandModel()
    window = model.window((1, 4, 4))
    found = model.operator("CUSTOM", [window], model.tensor((1, 4, 4)))
    model.model.operatorCodes[-1].customCode = b"ethos-u"
    for name in left:
        found = model.operator(name, [found, window], model.tensor((1, 4, 4)))
    return model.finish({"exit_01": found})


def parsed(summary: str = SUMMARY, layers: str = LAYERS, model: bytes | None = None) -> EthosUEstimate:
    return parse_estimate(
        summary, layers, model or compiled(), accelerator="ethos-u55-128", vela_version="5.2.0"
    )


class StandIn:
    """An installation of Vela that answers with given files, so that no test here needs the real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("ethosu/__init__.py", "")
        self.write("ethosu/vela/__init__.py", "")
        self.write("ethosu/config_files/Arm/vela.ini", CONFIG)
        self.write("ethos_u_vela-5.2.0.dist-info/METADATA", "Name: ethos-u-vela\nVersion: 5.2.0\n")
        self.answers(compiled())

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def runs(self, program: str) -> None:
        self.write("ethosu/vela/__main__.py", program)

    def answers(self, model: bytes, summary: str = SUMMARY, layers: str = LAYERS) -> None:
        files = {
            "model_vela.tflite": model,
            "model_summary_Ethos_U55_Deep_Embedded.csv": summary.encode(),
            "model_per-layer.csv": layers.encode(),
        }
        self.runs(f"for name, data in {files!r}.items():\n    open(name, 'wb').write(data)\n")


@pytest.fixture
def vela(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return StandIn(tmp_path)


def test_the_tables_of_the_present_core_are_read_by_the_names_of_their_columns():
    found = parsed(model=compiled("CUMSUM"))
    assert (found.system_config, found.memory_mode) == ("Ethos_U55_Deep_Embedded", "Shared_Sram")
    assert (found.core_clock_mhz, found.compiler_cycles) == (200, 3000)
    assert found.compiler_latency_ms == pytest.approx(0.015)
    assert (found.sram_bytes, found.dram_bytes, found.flash_bytes, found.npu_macs) == (1792, 0, 3296, 49000)
    assert found.layers == (
        EthosULayer("relu;conv", "Conv2D", "NPU", 1952, 43008),
        EthosULayer("relu;conv", "Conv2D", "NPU", 0, 0),
        EthosULayer('one,"two', "Cumsum", "CPU", None, None),
        EthosULayer("<unnamed>", "FullyConnected", "NPU", 1048, 5992),
    )
    assert found.compiled_model_bytes == len(compiled("CUMSUM"))
    assert not found.complete
    assert "no measurements" in found.notes[0]
    assert found.notes[1].endswith("not in cycles and latency: CUMSUM.")


def test_the_table_of_the_older_core_is_read_too():
    found = parsed(layers=OLD_LAYERS)
    assert found.layers == (
        EthosULayer("relu,conv", "CONV_2D", "NPU", 1951.5, 43008),
        EthosULayer("", "FULLY_CONNECTED", "NPU", 1048, 5992),
    )
    assert found.complete
    assert len(found.notes) == 1


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=20))
def test_a_name_comes_back_whatever_characters_it_has(name):
    present = f"{HEADER}\nAdd,Add,NPU,1,1.0,7,1.0,1,1,0,0,1,9,1.0,1.0,{name}\n"
    old = io.StringIO()
    csv.writer(old).writerow(["ADD", "Add", *"117111001", 9, 1, 1, name])
    for table in (present, f"{OLD_HEADER}\r\n{old.getvalue()}"):
        (layer,) = parsed(layers=table).layers
        assert (layer.name, layer.compiler_cycles, layer.macs) == (name, 7, 9)


@pytest.mark.parametrize(
    ("summary", "layers"),
    [
        ("", LAYERS),
        (SUMMARY.replace("cycles_total", "cycles_all"), LAYERS),
        (SUMMARY.replace("1.75", "much"), LAYERS),
        (SUMMARY.partition(",49000")[0] + "\n", LAYERS),
        (SUMMARY, ""),
        (SUMMARY, LAYERS.replace("Op Cycles", "Cycles")),
        (SUMMARY, LAYERS.replace("one,", "one\n")),
        (SUMMARY, OLD_LAYERS.replace("1951.5,65.0", "many,65.0")),
    ],
)
def test_a_table_that_is_not_understood_is_an_error_not_a_guess(summary, layers):
    with pytest.raises(RunError, match=r"known columns.*5\.2\.0"):
        parsed(summary, layers)


def test_without_vela_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ethos_u, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mexit-edge\[ethos-u\]"):
        estimate_ethos_u(additions())


def test_the_compiled_model_says_what_is_left_to_the_cpu(vela):
    vela.answers(compiled("CUMSUM", "ADD"))
    found = estimate_ethos_u(additions())
    assert found.cpu_operators == ("CUMSUM", "ADD")
    assert found.vela_version == "5.2.0"
    assert found.compiler_cycles == 3000
    # Nothing of Vela comes into this process.
    assert not any(name.partition(".")[0] == "ethosu" for name in sys.modules)


def test_unknown_names_list_the_known_ones(vela):
    with pytest.raises(InputError, match=r"`accelerator`.*ethos-u85-2048.*Did you mean 'ethos-u55-128'"):
        estimate_ethos_u(additions(), "ethos-u55-129")
    with pytest.raises(InputError, match=r"`system_config` must be one of: Ethos_U55_Deep_Embedded\. "):
        estimate_ethos_u(additions(), system_config="Ethos_U55_Deep")
    with pytest.raises(InputError, match=r"`memory_mode` must be one of: Dedicated_Sram, Shared_Sram\. "):
        estimate_ethos_u(additions(), memory_mode="Sram")


def test_clock_and_memories_of_another_family_are_refused(vela):
    with pytest.raises(InputError, match=r"`system_config` must be one of: Ethos_U85_SYS_DRAM_Low\. "):
        estimate_ethos_u(additions(), "ethos-u85-256")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"TFL3 no model", r"\.tflite"), (compiled(), "not compiled for the NPU yet")],
)
def test_a_model_that_vela_should_not_see_never_reaches_it(vela, monkeypatch, content, message):
    monkeypatch.setattr(ethos_u.subprocess, "run", None)
    with pytest.raises(InputError, match=message):
        estimate_ethos_u(content)


def test_a_model_that_is_all_left_to_the_cpu_has_no_estimate(vela):
    vela.answers(additions())
    with pytest.raises(InputError, match=r"ethos-u55-128 takes\. Received: ADD, all left to the CPU\."):
        estimate_ethos_u(additions())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('Error: too large')", r"exit status 1.*Error: too large"),
        ("print('no such operator'); raise SystemExit(3)", r"exit status 3.*no such operator"),
        ("import os; os.abort()", r"signal 6.*none"),
        ("pass", r"must write model_vela\.tflite"),
    ],
)
def test_a_failure_of_vela_comes_with_its_last_words(vela, program, message):
    vela.runs(program)
    with pytest.raises(RunError, match=message):
        estimate_ethos_u(additions())


def test_a_memory_mode_that_does_not_fit_the_system_is_the_callers_mistake(vela):
    vela.runs("import sys; sys.exit('x.ConfigOptionError: arena_mem_area=OffChipFlash')")
    with pytest.raises(InputError, match=r"`memory_mode` must fit.*'Dedicated_Sram'.*OffChipFlash"):
        estimate_ethos_u(additions(), memory_mode="Dedicated_Sram")


def test_vela_gets_a_limited_time(vela, monkeypatch):
    def too_long(command, *, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(ethos_u.subprocess, "run", too_long)
    with pytest.raises(RunError, match="within 600 seconds"):
        estimate_ethos_u(additions())


@pytest.mark.skipif(find_spec("ethosu") is None, reason="ethos-u-vela is not installed (the [ethos-u] extra)")
def test_the_real_vela_estimates_a_stage_and_names_what_it_leaves():
    stage = (REFERENCE / "stage_01.tflite").read_bytes()
    found = estimate_ethos_u(stage)
    assert found.complete
    assert found.compiler_cycles == sum(layer.compiler_cycles for layer in found.layers) > 0
    cycles_per_ms = found.core_clock_mhz * 1e3
    assert found.compiler_latency_ms == pytest.approx(found.compiler_cycles / cycles_per_ms)
    assert found.npu_macs == sum(layer.macs for layer in found.layers)
    assert 0 < found.sram_bytes < 16_384
    assert 0 < found.flash_bytes < found.compiled_model_bytes < 16_384
    assert estimate_ethos_u(stage, "ethos-u55-32").compiler_cycles > found.compiler_cycles
    mixed = estimate_ethos_u(additions(in_between="CUMSUM"))
    assert mixed.cpu_operators == ("CUMSUM",)
    assert [layer.target for layer in mixed.layers] == ["NPU", "CPU", "NPU"]
    with pytest.raises(InputError, match="all left to the CPU"):
        estimate_ethos_u(additions(dtype="FLOAT32"))
    with pytest.raises(InputError, match="Dedicated_Sram needs a system with DRAM"):
        estimate_ethos_u(stage, memory_mode="Dedicated_Sram")

"""Cycles published elsewhere than in the table of MLPerf Tiny, and what kernel libraries are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mexit_edge.estimate.latency.population import System

PERSON_DETECTION = "tflm_person_detect_model_data.tflite"


@dataclass(frozen=True)
class Published:
    """Cycles of one run.

    Args:
        system: where.
        what: the model or kernel that was timed; kernels end in " kernel".
        amounts: that a kernel asks for, by term; None for TFLM's person detection model.
        macs_per_output: of a kernel; None where it has no multiply-accumulates.
        cycles: measured.
        source: who published it.
        date: when.
    """

    system: System
    what: str
    amounts: Mapping[str, float] | None
    macs_per_output: float | None
    cycles: float
    source: str
    date: str


def _person_detection(
    board: str, core: str, stack: str, ms: float, mhz: float, source: str, when: str
) -> Published:
    family, version = stack.split(" ")
    system = System(board, core, family, version, f"{board} {family}")
    return Published(system, "person detection", None, None, ms * 1e3 * mhz, source, when)


def _s3_kernel(what: str, cycles: float, macs_per_output: float | None = None, **amounts: float) -> Published:
    """Return a row of esp-nn's table of kernels on the ESP32-S3: a call, without TFLM around it."""
    system = System("esp32-s3", "Xtensa LX7", "esp-nn", "1.2", "esp32-s3 esp-nn")
    source = "esp-nn README: table of kernels on ESP32-S3"
    return Published(system, f"{what} kernel", amounts, macs_per_output, cycles, source, "2026-11")


_ESP_NN = ("esp-nn README: invoke() of TFLM's person detection, internal memory", "2026-11")
_NANO_33 = ("guberti/tvm-arduino-profiling README: TFLM person detection, Arduino Nano 33 BLE", "2021-08")
PUBLISHED = (
    _person_detection("esp32", "Xtensa LX6", "esp-nn 1.2", 380, 240, *_ESP_NN),
    _person_detection("esp32", "Xtensa LX6", "tflm-reference 2023", 4084, 240, *_ESP_NN),
    _person_detection("esp32-s3", "Xtensa LX7", "esp-nn 1.2", 54, 240, *_ESP_NN),
    _person_detection("esp32-s3", "Xtensa LX7", "tflm-reference 2023", 2300, 240, *_ESP_NN),
    _person_detection("esp32-c3", "RV32IMC", "esp-nn 1.2", 426, 160, *_ESP_NN),
    _person_detection("esp32-c3", "RV32IMC", "tflm-reference 2023", 3355, 160, *_ESP_NN),
    # The same chip on another board.
    _person_detection("nrf52840-dk", "Cortex-M4F", "tflm-cmsis-nn 2021", 653.005, 64, *_NANO_33),
    _s3_kernel("conv 1x1 64x64", 331_008, 64, conv_1x1=409_600, output=6_400),
    _s3_kernel("conv 1x1 16x16", 39_022, 16, conv_1x1=16_384, output=1_024),
    _s3_kernel("conv 3x3 16x16", 46_838, 144, conv_kxk=36_864, output=256),
    _s3_kernel("depthwise 3x3", 184_176, 9, depthwise=36_864),
    _s3_kernel("depthwise 5x5", 372_435, 25, depthwise=80_000),
    _s3_kernel("depthwise 1x3", 2_137_390, 3, depthwise=147_456),
    _s3_kernel("fully connected 271x3", 1_543, 271, fully_connected=813, output=3),
    _s3_kernel("add", 74_440, element=3_230),
    _s3_kernel("mul", 35_002, element=3_230),
    _s3_kernel("softmax", 11_107, element=256),
)
# Of the log cycles of single kernels, which differ more than models do: the three depthwise ones of that
# table take 5.0, 4.7 and 14.5 cycles per multiply-accumulate.
KERNEL_DEVIATION = 0.6

# Stacks that a device file has without any latency of that library on that board.
UNMEASURED = (
    ("raspberry-pi-pico", "tflm-cmsis-nn", "2022"),
    ("raspberry-pi-pico", "tflm-reference", "2023"),
)
TITLES = {
    "x-cube-ai": "X-CUBE-AI",
    "plumerai": "Plumerai Inference Engine",
    "hale": "Bosch Hardware-Aware Lowering Engine",
    "onnc-cmsis-nn": "ONNC with CMSIS-NN",
    "microtvm-cmsis-nn": "microTVM with CMSIS-NN",
    "microtvm": "microTVM without CMSIS-NN",
    "tflm-andes-nn": "TensorFlow Lite Micro with the Andes NN library",
    "tflm-cmsis-nn": "TensorFlow Lite Micro with CMSIS-NN",
    "tflm-reference": "TensorFlow Lite Micro with reference kernels",
    "leip": "LEIP",
    "esp-nn": "TensorFlow Lite Micro with esp-nn",
}
# In a device file, newest version first: the first stack is the default.
ORDER = ("tflm-cmsis-nn", "esp-nn", "x-cube-ai", "microtvm-cmsis-nn", "tflm-andes-nn", "plumerai", "hale")

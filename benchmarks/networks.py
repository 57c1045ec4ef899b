"""Multi-exit networks of every shape that cutting has to cope with, for windows of any values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from mexit_edge.models import BACKBONES, attach_exits, build
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.signals import Sensor

IMU, SPECTROGRAM = Sensor.plain(6, 128), Sensor.plain(10, 49)
N_CLASSES = 6
layers = keras.layers


def backbone(name: str, **options: Any) -> keras.Model:
    sensor = SPECTROGRAM if name == "dscnn2d" else IMU
    return build(name, sensor, N_CLASSES, **options)


def convolution(x: Any, channels: int, name: str, **options: Any) -> Any:
    x = layers.Conv1D(channels, 3, padding="same", use_bias=False, name=name, **options)(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm")(x))


def classified(window: Any, x: Any, name: str, pool: Any = None) -> keras.Model:
    pooled = (pool or layers.GlobalAveragePooling1D)()(x)
    return keras.Model(window, layers.Dense(N_CLASSES, name="classes")(pooled), name=name)


def residual() -> keras.Model:
    window = keras.Input(IMU.shape)
    x = convolution(window, 16, "stem", strides=2)
    for number in (1, 2, 3):
        y = convolution(x, 16, f"inner_{number}")
        x = layers.Add(name=f"sum_{number}")([x, y])
    return attach_exits(classified(window, x, "residual"), at=["sum_1", "sum_2"])


def long_skip() -> keras.Model:
    window = keras.Input(IMU.shape)
    first = convolution(window, 12, "first", strides=2)
    second = convolution(first, 12, "second", strides=2)
    third = convolution(second, 16, "third")
    skip = layers.MaxPooling1D(2, name="skip")(first)
    joined = layers.Concatenate(name="joined")([third, skip])
    return attach_exits(classified(window, joined, "long_skip"), at=["first_relu", "second_relu"])


def nested() -> keras.Model:
    inside = keras.Input((64, 16))
    inner = keras.Model(inside, convolution(convolution(inside, 16, "deep"), 24, "deeper"), name="inner")
    window = keras.Input(IMU.shape)
    x = inner(convolution(window, 16, "outer", strides=2))
    return attach_exits(classified(window, x, "nested"), at=["outer_relu", "inner/deep_relu"])


def two_inputs() -> keras.Model:
    left, right = keras.Input((128, 3), name="acc"), keras.Input((128, 3), name="gyr")
    towers = [
        convolution(one, 8, f"tower_{name}", strides=2) for one, name in ((left, "acc"), (right, "gyr"))
    ]
    x = convolution(layers.Concatenate(name="both")(towers), 24, "mixed", strides=2)
    return attach_exits(classified([left, right], x, "two_inputs"), at=["tower_acc_relu", "both"])


def image() -> keras.Model:
    window = keras.Input((24, 24, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="one")(window)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="two")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Conv2D(24, 3, activation="relu", name="three")(x)
    return attach_exits(
        classified(window, x, "image", layers.GlobalAveragePooling2D), at=["one", "two"], head="maximum"
    )


def shared_layer() -> keras.Model:
    window = keras.Input(IMU.shape)
    x = convolution(window, 16, "stem", strides=2)
    again = layers.Conv1D(16, 3, padding="same", activation="relu", name="again")
    return attach_exits(classified(window, again(again(x)), "shared"), at=["stem_relu", "again#1"])


def shares() -> keras.Model:
    window = x = keras.Input(IMU.shape)
    for number, channels in enumerate((12, 16, 24, 24, 32), start=1):
        x = convolution(x, channels, f"block_{number}", strides=2 if number < 4 else 1)
    return attach_exits(classified(window, x, "shares"), at=["10 %", 0.3, 0.6], head="average")


def _own(builder: Callable[..., keras.Model], at: Sequence[Any]) -> keras.Model:
    return attach_exits(builder(48, 1, 3), at=at)


def example() -> keras.Model:
    """The network of examples/own_network.py."""
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "examples" / "own_network.py"
    specification = importlib.util.spec_from_file_location("own_network", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return _own(module.my_network, ["early", "residual"])


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    **{name: (lambda name=name: backbone(name)) for name in BACKBONES},
    "cnn_cascaded": lambda: backbone("cnn", preset="small", cascade=True),
    "cnn_convolutional_heads": lambda: backbone("cnn", preset="small", head="convolutional"),
    "dscnn_boosted": lambda: add_running_sums(backbone("dscnn", preset="small"), 0.5),
    "tcn_causal": lambda: backbone("tcn", preset="small", causal=True),
    "residual": residual,
    "long_skip": long_skip,
    "nested": nested,
    "two_inputs": two_inputs,
    "image": image,
    "shared_layer": shared_layer,
    "mac_shares": shares,
    "example": example,
}

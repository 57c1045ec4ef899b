"""Which Keras layers become int8 operators: the tables of `mexit_edge.models.int8_support`, found anew.

    python benchmarks/int8_layers.py [--names NAME ...]

Converts small networks of one layer, activation or operation each, between a convolution and a dense layer,
and writes down what the converter made of it, whether the int8 model has a price (every operator of it is one
of `mexit_edge.estimate.OPERATIONS`), and whether TFLM runs it. Writes results/int8_layers.csv; rows that are
there are not computed again unless named. Exit code 1 where `layer_table` says something else: a layer
`converts` where the model has a price. A test holds the table against these rows.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tables
from keras import layers, ops
from numpy.typing import NDArray

from mexit_edge.compress import convert
from mexit_edge.errors import InputError, RunError
from mexit_edge.estimate import OPERATIONS
from mexit_edge.models import layer_table
from mexit_edge.models.layer_table import LayerRow
from mexit_edge.runtime.engines import open_model
from mexit_edge.runtime.trial import try_in_child
from mexit_edge.tflite import Graph

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fixtures_networks import converting_in_this_process

RESULTS = Path(__file__).parent / "results" / "int8_layers.csv"
# Shapes of inputs: (time, channels), (height, width, channels), and one axis more.
TIME, PLANE, VOLUME = (12, 4), (8, 6, 4), (4, 4, 4, 2)
N_WINDOWS = 16


@dataclass(frozen=True)
class Case:
    """One network.

    Args:
        make: gives what maps one tensor to another.
        shape: of the input, without the batch.
        is_first: whether it reads the input itself, without a convolution before.
    """

    make: Callable[[], Callable[[Any], Any]]
    shape: tuple[int, ...] = TIME
    is_first: bool = False

    def network(self) -> keras.Model:
        """Return a functional network with one exit."""
        x = window = keras.Input(self.shape)
        if not self.is_first:
            convolution = {2: layers.Conv1D, 3: layers.Conv2D}.get(len(self.shape))
            x = layers.Dense(4)(x) if convolution is None else convolution(4, 3, padding="same")(x)
        x = self.make()(x)
        x = x if len(x.shape) == 2 else layers.Flatten()(x)
        return keras.Model(window, {"exit_01": layers.Dense(3, name="exit_01")(x)})


def layer_of(name: str, options: Any) -> Any:
    return getattr(layers, name)(**options)


def merging(name: str) -> Callable[[Any], Any]:
    return twice(layer_of(name, {}))


def twice(layer: Any) -> Callable[[Any], Any]:
    """Return a function that calls a layer of two inputs with two tensors made of one."""

    def call(x: Any) -> Any:
        return layer([x, layers.Conv1D(4, 3, padding="same")(x)])

    return call


def attending(layer: Any) -> Callable[[Any], Any]:
    return lambda x: layer(x, x)


LAYER_CASES: dict[str, Case] = {
    **{
        name: Case(partial(merging, name))
        for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    **{
        name: Case(partial(layer_of, name, options))
        for name, options in {
            "Activation": {"activation": "relu"},
            "ActivityRegularization": {},
            "AlphaDropout": {"rate": 0.5},
            "BatchNormalization": {},
            "Conv1D": {"filters": 4, "kernel_size": 3, "dilation_rate": 2},
            "Conv1DTranspose": {"filters": 4, "kernel_size": 3},
            "Cropping1D": {},
            "Dense": {"units": 4},
            "DepthwiseConv1D": {"kernel_size": 3},
            "Dropout": {"rate": 0.5},
            "ELU": {},
            "EinsumDense": {"equation": "abc,cd->abd", "output_shape": (12, 5)},
            "Flatten": {},
            "GaussianDropout": {"rate": 0.5},
            "GaussianNoise": {"stddev": 0.1},
            "GlobalAveragePooling1D": {},
            "GlobalMaxPooling1D": {},
            "GroupNormalization": {"groups": 2},
            "Identity": {},
            "LayerNormalization": {},
            "LeakyReLU": {},
            "Masking": {},
            "MaxPooling1D": {},
            "AveragePooling1D": {"pool_size": 2},
            "PReLU": {},
            "Permute": {"dims": (2, 1)},
            "RMSNormalization": {},
            "ReLU": {},
            "Rescaling": {"scale": 0.5, "offset": 0.1},
            "Reshape": {"target_shape": (6, 8)},
            "SeparableConv1D": {"filters": 5, "kernel_size": 3},
            "Softmax": {},
            "SpatialDropout1D": {"rate": 0.5},
            "UnitNormalization": {},
            "UpSampling1D": {},
            "ZeroPadding1D": {},
        }.items()
    },
    **{
        name: Case(partial(layer_of, name, options), PLANE)
        for name, options in {
            "AveragePooling2D": {"pool_size": 2},
            "Conv2D": {"filters": 4, "kernel_size": 3},
            "Conv2DTranspose": {"filters": 4, "kernel_size": 3},
            "Cropping2D": {},
            "DepthwiseConv2D": {"kernel_size": 3},
            "GlobalAveragePooling2D": {},
            "GlobalMaxPooling2D": {},
            "MaxPooling2D": {},
            "Resizing": {"height": 4, "width": 4},
            "SeparableConv2D": {"filters": 5, "kernel_size": 3},
            "SpatialDropout2D": {"rate": 0.5},
            "UpSampling2D": {},
            "ZeroPadding2D": {},
        }.items()
    },
    **{
        name: Case(partial(layer_of, name, options), VOLUME)
        for name, options in {
            "AveragePooling3D": {"pool_size": 2},
            "Conv3DTranspose": {"filters": 3, "kernel_size": 2},
            "Cropping3D": {},
            "GlobalAveragePooling3D": {},
            "GlobalMaxPooling3D": {},
            "SpatialDropout3D": {"rate": 0.5},
            "UpSampling3D": {},
            "ZeroPadding3D": {},
            "Conv3D": {"filters": 3, "kernel_size": 2},
            "MaxPooling3D": {},
        }.items()
    },
    "AdditiveAttention": Case(lambda: twice(layers.AdditiveAttention())),
    "Attention": Case(lambda: twice(layers.Attention())),
    "Bidirectional, unroll=True": Case(
        lambda: layers.Bidirectional(layers.SimpleRNN(3, unroll=True)), (6, 4)
    ),
    "Conv1D, groups=2": Case(lambda: layers.Conv1D(4, 3, groups=2)),
    "Discretization": Case(lambda: layers.Discretization([-1.0, 0.0, 1.0], output_mode="one_hot")),
    "Dot": Case(lambda: twice(layers.Dot(axes=(2, 2)))),
    "Embedding": Case(lambda: layers.Embedding(8, 4), (12,), is_first=True),
    "MelSpectrogram": Case(lambda: layers.MelSpectrogram(64, 32, num_mel_bins=8), (512,), is_first=True),
    "MultiHeadAttention": Case(lambda: attending(layers.MultiHeadAttention(2, 3))),
    "Normalization": Case(lambda: layers.Normalization(mean=0.5, variance=2.0)),
    "ReLU, max_value=3": Case(lambda: layers.ReLU(max_value=3)),
    "ReLU, max_value=3, negative_slope=0.1": Case(lambda: layers.ReLU(max_value=3, negative_slope=0.1)),
    "ReLU, max_value=6": Case(lambda: layers.ReLU(max_value=6)),
    "ReLU, negative_slope=0.1": Case(lambda: layers.ReLU(negative_slope=0.1)),
    "ReLU, threshold=0.5": Case(lambda: layers.ReLU(threshold=0.5)),
    "RepeatVector": Case(lambda: lambda x: layers.RepeatVector(3)(layers.GlobalMaxPooling1D()(x))),
    "STFTSpectrogram": Case(
        lambda: layers.STFTSpectrogram(frame_length=64, frame_step=32, fft_length=64),
        (512, 1),
        is_first=True,
    ),
    "SpectralNormalization": Case(lambda: layers.SpectralNormalization(layers.Dense(4))),
    "TimeDistributed": Case(lambda: layers.TimeDistributed(layers.Dense(3))),
    **{
        f"{name}, unroll={unroll}": Case(partial(layer_of, name, {"units": 3, "unroll": unroll}), (6, 4))
        for name in ("GRU", "LSTM", "SimpleRNN")
        for unroll in (False, True)
    },
}
ACTIVATION_CASES = {
    name: Case(partial(layer_of, "Dense", {"units": 4, "activation": name}))
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"),
        *("linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("softmax", "softplus", "softsign", "squareplus", "tanh", "tanh_shrink"),
    )
}
OPERATION_CASES: dict[str, Case] = {
    "Absolute": Case(lambda: ops.absolute),
    "Add": Case(lambda: lambda x: x + 1.5),
    "Amax": Case(lambda: lambda x: ops.amax(x, axis=1)),
    "Amin": Case(lambda: lambda x: ops.amin(x, axis=1)),
    "Argmax": Case(lambda: lambda x: ops.one_hot(ops.argmax(x, axis=-1), 4)),
    "BroadcastTo": Case(lambda: lambda x: ops.broadcast_to(ops.mean(x, axis=1, keepdims=True), (1, 12, 4))),
    "Cast": Case(lambda: lambda x: ops.cast(ops.cast(x, "int32"), "float32")),
    "Clip": Case(lambda: lambda x: ops.clip(x, -1.0, 1.0)),
    "Concatenate": Case(lambda: lambda x: ops.concatenate([x, x], axis=-1)),
    "Cumsum": Case(lambda: lambda x: ops.cumsum(x, axis=1)),
    "Divide": Case(lambda: lambda x: ops.divide(x, 2.5)),
    "Elu": Case(lambda: ops.elu),
    "Exp": Case(lambda: lambda x: ops.exp(-ops.relu(x))),
    "ExpandDims": Case(lambda: lambda x: ops.expand_dims(x, 1)),
    "Flip": Case(lambda: lambda x: ops.flip(x, axis=1)),
    "Gelu": Case(lambda: ops.gelu),
    "GetItem": Case(lambda: lambda x: x[:, 2:6]),
    "HardSigmoid": Case(lambda: ops.hard_sigmoid),
    "HardSilu": Case(lambda: ops.hard_silu),
    "HardTanh": Case(lambda: ops.hard_tanh),
    "LeakyRelu": Case(lambda: ops.leaky_relu),
    "Log": Case(lambda: lambda x: ops.log(ops.relu(x) + 1.0)),
    "Matmul": Case(lambda: lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))),
    "Max": Case(lambda: lambda x: ops.max(x, axis=1)),
    "Maximum": Case(lambda: lambda x: ops.maximum(x, 0.5)),
    "Mean": Case(lambda: lambda x: ops.mean(x, axis=1)),
    "Min": Case(lambda: lambda x: ops.min(x, axis=1)),
    "Minimum": Case(lambda: lambda x: ops.minimum(x, 0.5)),
    "Multiply": Case(lambda: lambda x: x * x),
    "Negative": Case(lambda: lambda x: -x),
    "Pad": Case(lambda: lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0)))),
    "Power": Case(lambda: lambda x: ops.power(x, 2.0)),
    "Prod": Case(lambda: lambda x: ops.prod(x, axis=-1)),
    "RFFT": Case(lambda: lambda x: ops.rfft(x)[0]),
    "Reciprocal": Case(lambda: lambda x: ops.reciprocal(ops.relu(x) + 1.0)),
    "Relu": Case(lambda: ops.relu),
    "Relu6": Case(lambda: ops.relu6),
    "Repeat": Case(lambda: lambda x: ops.repeat(x, 2, axis=1)),
    "Reshape": Case(lambda: lambda x: ops.reshape(x, (-1, 6, 8))),
    "Rsqrt": Case(lambda: lambda x: ops.rsqrt(ops.relu(x) + 1.0)),
    "Sigmoid": Case(lambda: ops.sigmoid),
    "Silu": Case(lambda: ops.silu),
    "Sin": Case(lambda: ops.sin),
    "Softmax": Case(lambda: ops.softmax),
    "Softplus": Case(lambda: ops.softplus),
    "Split": Case(lambda: lambda x: ops.split(x, 2, axis=1)[0]),
    "Sqrt": Case(lambda: lambda x: ops.sqrt(ops.relu(x) + 1.0)),
    "Square": Case(lambda: ops.square),
    "Squeeze": Case(lambda: lambda x: ops.squeeze(ops.mean(x, axis=1, keepdims=True), 1)),
    "Stack": Case(lambda: lambda x: ops.stack([x, x], axis=1)),
    "Std": Case(lambda: lambda x: ops.std(x, axis=1)),
    "Subtract": Case(lambda: lambda x: x - 1.5),
    "Sum": Case(lambda: lambda x: ops.sum(x, axis=1)),
    "Take": Case(lambda: lambda x: ops.take(x, np.array([0, 3]), axis=1)),
    "Tanh": Case(lambda: ops.tanh),
    "Tile": Case(lambda: lambda x: ops.tile(x, (1, 2, 1))),
    "Transpose": Case(lambda: lambda x: ops.transpose(x, (0, 2, 1))),
    "TrueDivide": Case(lambda: lambda x: x / 2.5),
    "Var": Case(lambda: lambda x: ops.var(x, axis=1)),
    "Where": Case(lambda: lambda x: ops.where(x > 0.0, x, x * 0.5)),
}
CASES = {
    **{f"layer {name}": case for name, case in LAYER_CASES.items()},
    **{f"activation {name}": case for name, case in ACTIVATION_CASES.items()},
    **{f"operation {name}": case for name, case in OPERATION_CASES.items()},
}


def verdict(table: Sequence[LayerRow]) -> bool | None:
    """Return what the table says of a network: False where a layer blocks, None where one is unknown."""
    found = {row.int8.converts for row in table}
    return False if False in found else None if None in found else True


def made_of(network: keras.Model, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the operators that a network becomes, and whether all have a price; or why it is refused."""
    windows = np.random.default_rng(0).normal(size=(N_WINDOWS, *shape)).astype(np.float32)
    try:
        with warnings.catch_warnings(), converting_in_this_process():
            warnings.simplefilter("ignore")
            content = convert(network, windows)
    except (InputError, RunError) as error:
        said = str(error).partition("Received: ")[2]
        return {"is_int8": False, "is_priced": False, "made_of": said, "tflm": None}
    made = dict.fromkeys(one.name for one in Graph(content).operators)
    facts = {"is_int8": True, "is_priced": set(made) <= set(OPERATIONS), "made_of": " ".join(made)}
    return {**facts, "tflm": on_tflm(content, windows)}


def on_tflm(content: bytes, windows: NDArray[np.float32]) -> str:
    """Return "runs", or why TFLM does not."""
    graph = Graph(content)
    window = graph.tensors[graph.inputs[0]]
    counts = np.clip(np.rint(windows / window.scale) + window.zero_point, -128, 127).astype(np.int8)
    try:
        try_in_child([content], ["tflm"])
        open_model("tflm", content).run_batch([counts])
    except (InputError, RunError) as error:
        return str(error).partition("Received: ")[2].splitlines()[0]
    return "runs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--names", nargs="*", default=(), help="of cases to convert anew")
    options = parser.parse_args()
    known = {row["case"]: row for row in tables.read(RESULTS)}
    rows: list[dict[str, Any]] = []
    wrong = []
    for name, case in CASES.items():
        network = case.network()
        said, row = verdict(layer_table(network)), known.get(name)
        if row is None or name in options.names:
            row = {"case": name, **made_of(network, case.shape)}
        rows.append(row)
        print(f"the table says {said}: {row}", flush=True)
        if said is not None and said != (str(row["is_priced"]) == "True"):
            wrong.append(row)
        # Rows that are still to come are kept.
        tables.write(RESULTS, rows + [known[other] for other in known if other in list(CASES)[len(rows) :]])
    for row in wrong:
        print(f"wrong: {row}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

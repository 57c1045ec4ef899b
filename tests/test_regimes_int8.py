"""What every regime trained becomes int8 stages that compute what the whole model computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from fixtures_networks import (
    CLASSES,
    EACH_ENGINE,
    N_CLASSES,
    SENSOR,
    TRAIN_REASON,
    converting_in_this_process,
    leaving_out_the_count,
    random_samples,
    synthetic_windows,
)

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras

from mexit_edge.bundle import Bundle
from mexit_edge.compress import bundle_from_whole, convert
from mexit_edge.models import build
from mexit_edge.regimes import REGIMES, MultiExitModel, make_regime
from mexit_edge.runtime import Runtime, staged_against_whole
from mexit_edge.tflite import Graph

pytestmark = pytest.mark.train
EACH_REGIME = pytest.mark.parametrize("regime", list(REGIMES))
WINDOWS, OTHERS = synthetic_windows(96), synthetic_windows(64, seed=5)


@dataclass(frozen=True)
class Trained:
    """A network trained under a regime, its whole int8 model, and the bundle of its stages."""

    model: MultiExitModel
    whole: bytes
    bundle: Bundle


@cache
def trained(regime: str) -> Trained:
    """Train and convert, once per regime."""
    keras.utils.set_random_seed(2)
    network = build(
        "dscnn", SENSOR, N_CLASSES, stem=(6, 5, 2), blocks=(((6, 3, 1),), ((8, 3, 2),)), dropout=0.0
    )
    model = MultiExitModel(network, regime)
    # A few steps, of all windows each, cost less than a graph.
    model.compile(optimizer=keras.optimizers.Adam(0.05), run_eagerly=True)
    n_phases = len(make_regime(regime).phases(2))
    with leaving_out_the_count():
        model.fit(WINDOWS, batch_size=96, epochs=max(8, 4 * n_phases), verbose=0)
    assert model.normalisation is not None
    with converting_in_this_process():
        whole = convert(model.network, model.normalisation.apply(WINDOWS.x))
    bundle = bundle_from_whole(
        whole,
        exits=model.exits,
        name=regime,
        sensor=SENSOR,
        normalisation=model.normalisation,
        classes=CLASSES,
        training=model.provenance,
    )
    return Trained(model, whole, bundle)


# All engines of a regime one after the other, so that tests in several processes train it once.
@EACH_ENGINE
@EACH_REGIME
def test_stages_equal_the_whole(regime: str, engine: str) -> None:
    made = trained(regime)
    samples = np.concatenate([OTHERS.x, random_samples(64, SENSOR.shape)])
    rows = staged_against_whole(made.bundle, made.whole, samples, engine)
    assert [row.exit for row in rows] == ["exit_01", "exit_02"]
    for row in rows:
        assert row.windows == 128
        assert (row.differing_windows, row.differing_elements) == (0, 0)
    assert made.bundle.manifest.training.regime == regime


@EACH_REGIME
def test_int8_decides_as_the_float_network(regime: str) -> None:
    made = trained(regime)
    floats = made.model.predict(OTHERS, verbose=0)
    integers = Runtime(made.bundle, "litert-reference").all_logits(OTHERS.x)
    for place, exit_ in enumerate(made.model.exits):
        # Constant logits would agree with anything as constant.
        assert len(set(floats[exit_].argmax(1))) > 1
        assert (integers[:, place].argmax(1) == floats[exit_].argmax(1)).mean() >= 0.9


def test_regimes_have_weights_of_their_own() -> None:
    # Single stages may be equal: the heads that `1-2-3` trains last follow the backbone of `mixed`.
    assert len({trained(regime).whole for regime in REGIMES}) == len(REGIMES)


def test_boosted_stages_carry_the_running_sum() -> None:
    made, plain = trained("boosted"), trained("joint")
    first, second = made.bundle.manifest.stages
    logits = first.outputs[0]
    # F_1 crosses the border, which the plain network's logits do not.
    assert logits.name in {tensor.name for tensor in second.inputs}
    assert logits.shape == (1, N_CLASSES)
    plain_first, plain_second = plain.bundle.manifest.stages
    assert plain_first.outputs[0].name not in {tensor.name for tensor in plain_second.inputs}
    assert len(second.inputs) == len(plain_second.inputs) + 1
    assert {"ADD", "MUL"} <= set(second.ops)
    assert not {"ADD", "MUL"} & {*plain_second.ops, *first.ops}
    # The sum is elementwise: it needs no multiply-accumulate beyond its own product.
    assert second.macs is not None
    assert plain_second.macs is not None
    assert 0 <= second.macs - plain_second.macs <= 2 * N_CLASSES
    assert {tensor.dtype for tensor in Graph(made.whole).tensors if tensor.shape == (1, N_CLASSES)} == {
        "INT8"
    }


def test_int8_logits_of_a_boosted_exit_are_the_sum() -> None:
    made = trained("boosted")
    network = made.model.network
    own = keras.Model(network.inputs[0], network.get_layer("exit_02").output)
    x = made.model.normalisation.apply(OTHERS.x)
    logits = Runtime(made.bundle, "litert-reference").all_logits(OTHERS.x).astype(float)
    specs = [stage.outputs[0] for stage in made.bundle.manifest.stages]
    sums = [(logits[:, place] - spec.zero_point) * spec.scale for place, spec in enumerate(specs)]
    expected = np.asarray(own(x)) + 0.5 * sums[0]
    # On average a step or two, window by window more where activations saturate; without the sum, or with
    # the sum twice, it would be off by logits.
    tolerance = 2 * max(spec.scale for spec in specs)
    assert np.abs(sums[1] - expected).mean() <= tolerance < 0.2 * np.abs(0.5 * sums[0]).mean()

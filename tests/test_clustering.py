"""Clustering, and the quantization-aware training of TensorFlow Model Optimization."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import fixtures_networks as fixtures
import numpy as np
import pytest

from mexit_edge.errors import InputError

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(not fixtures.HAS_TENSORFLOW, reason=fixtures.TRAIN_REASON),
    pytest.mark.skipif(
        find_spec("tensorflow_model_optimization") is None,
        reason="TensorFlow Model Optimization is not installed (the [compress] extra)",
    ),
]

CLUSTERS = 6
WINDOWS = fixtures.synthetic_windows(64)


@cache
def network() -> Any:
    """Two exits; the first convolution is sparse, as after pruning, and the second one is not."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    window = keras.Input(fixtures.SENSOR.shape, name="window")
    x = window
    outputs = {}
    for number in (1, 2):
        x = layers.Conv1D(8, 3, strides=2, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x))
        pooled = layers.GlobalAveragePooling1D()(x)
        outputs[f"exit_{number:02d}"] = layers.Dense(fixtures.N_CLASSES, name=f"exit_{number:02d}")(pooled)
        if number == 1:
            x = layers.DepthwiseConv1D(3, padding="same", name="depthwise")(x)
    made = fixtures.randomise(keras.Model(window, outputs))
    kernel = made.get_layer("conv_1").kernel
    values = np.asarray(kernel)
    kernel.assign(np.where(np.abs(values) < np.quantile(np.abs(values), 0.75), 0, values))
    return made


@cache
def clustered() -> Any:
    from mexit_edge.compress import cluster

    return cluster(network(), WINDOWS, clusters=CLUSTERS, epochs=1, batch_size=16, verbose=0)


def test_kernels_have_few_values_and_keep_their_zeros() -> None:
    from mexit_edge.compress import kernel_facts

    before = {one.layer: one for one in kernel_facts(network())}
    after = {one.layer: one for one in kernel_facts(clustered())}
    assert set(before) == set(after) == {"conv_1", "conv_2", "depthwise", "exit_01", "exit_02"}
    for name, one in after.items():
        assert before[name].distinct > CLUSTERS
        assert (one.distinct <= CLUSTERS) == (name != "depthwise")
    zero = [np.asarray(one.get_layer("conv_1").kernel) == 0 for one in (network(), clustered())]
    np.testing.assert_array_equal(*zero)
    assert after["conv_1"].sparsity >= 0.74


def test_a_model_says_what_was_done_to_it() -> None:
    import keras

    import mexit_edge as mx
    from mexit_edge.compress import cluster

    window = keras.Input(fixtures.SENSOR.shape, name="window")
    logits = keras.layers.Dense(fixtures.N_CLASSES, name="exit_01")(keras.layers.Flatten()(window))
    model = mx.MultiExitModel(keras.Model(window, {"exit_01": logits}))
    done = cluster(model, WINDOWS, clusters=4, epochs=1, batch_size=64, verbose=0)
    assert done.provenance.regime == "joint, clustered 4"


def test_statistics_of_normalisation_are_learned_on() -> None:
    for layer in ("norm_1", "norm_2"):
        old, new = (np.asarray(one.get_layer(layer).moving_mean) for one in (network(), clustered()))
        assert (old != new).all()


def test_few_values_survive_into_every_channel_of_the_int8_model() -> None:
    from mexit_edge.compress import convert, kernel_facts, zipped_bytes

    with fixtures.converting_in_this_process():
        dense, content = (convert(one, WINDOWS.x) for one in (network(), clustered()))
    facts = [one for one in kernel_facts(content) if not one.is_depthwise]
    assert len(facts) == 4
    assert all(one.distinct_per_channel <= CLUSTERS for one in facts)
    assert max(one.distinct_per_channel for one in kernel_facts(dense)) > CLUSTERS
    assert zipped_bytes(content) < zipped_bytes(dense)


@pytest.mark.parametrize(
    ("clusters", "words"),
    [(2, "at least 3"), *((wrong, "whole number") for wrong in (4.5, True, float("nan"), "16"))],
)
def test_bad_number_of_clusters(clusters: Any, words: str) -> None:
    from mexit_edge.compress import cluster

    with pytest.raises(InputError, match=words):
        cluster(network(), WINDOWS, clusters=clusters)


@pytest.mark.parametrize("what", ["prune", "cluster"])
def test_a_frozen_kernel_is_refused(what: str) -> None:
    from mexit_edge import compress

    layer = network().get_layer("conv_2")
    layer.trainable = False
    try:
        with pytest.raises(InputError, match="'conv_2'"):
            getattr(compress, what)(network(), WINDOWS, verbose=0)
    finally:
        layer.trainable = True


def test_its_quantization_aware_training_ends_in_int8_stages() -> None:
    import keras

    from mexit_edge.bundle import Training
    from mexit_edge.compress import bundle_from_whole, kernel_facts, tfmot_quantize_aware
    from mexit_edge.runtime import staged_against_whole
    from mexit_edge.signals import Normalisation
    from mexit_edge.tflite import audit_int8

    keras.utils.set_random_seed(2)
    with fixtures.converting_in_this_process():
        whole = tfmot_quantize_aware(network(), WINDOWS, epochs=1, batch_size=16, verbose=0)
    audit_int8(whole)
    assert len(kernel_facts(whole)) == 5
    bundle = bundle_from_whole(
        whole,
        exits=("exit_01", "exit_02"),
        name="qat",
        sensor=fixtures.SENSOR,
        normalisation=Normalisation.identity(3),
        classes=fixtures.CLASSES,
        training=Training(),
    )
    assert bundle.manifest.stages[0].inputs[0].shape == (1, *fixtures.SENSOR.shape)
    rows = staged_against_whole(bundle, whole, WINDOWS.x, "litert-reference")
    assert [row.windows for row in rows] == [64, 64]
    assert all(row.differing_elements == 0 for row in rows)


def test_what_it_cannot_quantize_is_refused() -> None:
    from mexit_edge.compress import tfmot_quantize_aware

    with pytest.raises(InputError, match=r"can quantize.*(?i:multiply)"):
        tfmot_quantize_aware(fixtures.long_skip_network(), WINDOWS, verbose=0)

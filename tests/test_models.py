"""Options of backbones; what all of them must be able to do stands in test_backbones.py."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from fixtures_networks import N_CLASSES, SENSOR, TRAIN_REASON, dscnn_network, random_samples

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

from keras import layers

from mexit_edge.models import BACKBONES, build
from mexit_edge.signals import Sensor

pytestmark = pytest.mark.train
X = random_samples(6, SENSOR.shape)


def test_dscnn_takes_its_options() -> None:
    network = dscnn_network()
    assert network.get_layer("stem").filters == 8
    assert [network.get_layer(f"block_{n:02d}_01_pointwise").filters for n in (1, 2, 3)] == [8, 12, 16]
    assert build("dscnn", SENSOR, 3, blocks=(((8, 3, 1),),)).output.keys() == {"exit_01"}
    assert not any(
        isinstance(layer, layers.Dropout) for layer in build("dscnn", SENSOR, 3, dropout=0.0).layers
    )


def test_dropout_rests_at_inference() -> None:
    network = build("dscnn", SENSOR, N_CLASSES, dropout=0.5)
    once, twice = (network(X, training=False)["exit_03"] for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    noisy, again = (network(X, training=True)["exit_03"] for _ in range(2))
    assert np.abs(np.asarray(noisy) - np.asarray(again)).max() > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_takes_short_windows_of_one_channel(backbone: str) -> None:
    network = build(backbone, Sensor.plain(1, 5), 2)
    outputs = network(np.ones((2, 5, 1), np.float32), training=False)
    assert {logits.shape for logits in outputs.values()} == {(2, 2)}

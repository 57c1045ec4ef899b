"""Phases of a regime: what rests and what learns, epochs, optimizers, early stopping, and what it costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures_networks import (
    N_CLASSES,
    TRAIN_REASON,
    cascaded_network,
    counting_once,
    leaving_out_the_count,
    long_skip_network,
    residual_network,
)
from hypothesis import given
from hypothesis import strategies as st

if find_spec("tensorflow") is None or find_spec("keras") is None:
    pytest.skip(TRAIN_REASON, allow_module_level=True)

import keras
from keras import layers

from mexit_edge.errors import InputError
from mexit_edge.models.anatomy import anatomy
from mexit_edge.models.running_sum import add_running_sums
from mexit_edge.regimes import Mixed, MultiExitEarlyStopping, MultiExitModel, OneTwoThree, make_regime
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.phases import Phase, block_phase, epochs_per_phase, heads_phase
from mexit_edge.regimes.schedule import RescaledSchedule

pytestmark = pytest.mark.train
N, BATCH = 24, 8
STEPS = N // BATCH


@pytest.fixture(scope="module", autouse=True)
def _counted_once() -> Iterator[None]:
    with counting_once():
        yield


# --- A network with all that can be forgotten when layers are frozen ----------------------------------------

BLOCKS = {
    1: ("motion_flat", "one", "one_norm", "one_dropout", "shared"),
    2: ("place_dense", "nested", "joined"),
    3: ("three",),
}
HEADS = {
    number: tuple(f"exit_{number:02d}{part}" for part in ("_norm", "_dropout", "")) for number in (1, 2)
} | {3: ("exit_03",)}


def rich_network() -> keras.Model:
    """Two inputs; batch normalisation and dropout in backbone, heads and a nested model; a shared layer."""
    motion, place = keras.Input((4, 3), name="motion"), keras.Input((5,), name="place")
    x = layers.Dense(6, name="one")(layers.Flatten(name="motion_flat")(motion))
    x = layers.BatchNormalization(name="one_norm")(x)
    shared = layers.Dense(6, activation="tanh", name="shared")
    x = shared(layers.Dropout(0.3, name="one_dropout")(x))
    outputs = {"exit_01": _rich_head(x, 1)}
    inside = keras.Input((6,))
    y = layers.BatchNormalization(name="inner_norm")(layers.Dense(6, name="inner")(inside))
    nested = keras.Model(inside, layers.Dropout(0.3, name="inner_dropout")(y), name="nested")
    x = layers.Add(name="joined")([shared(nested(x)), layers.Dense(6, name="place_dense")(place)])
    outputs["exit_02"] = _rich_head(x, 2)
    outputs["exit_03"] = layers.Dense(N_CLASSES, name="exit_03")(layers.Dense(6, name="three")(x))
    return keras.Model({"motion": motion, "place": place}, outputs)


def _rich_head(x: Any, number: int) -> Any:
    name = f"exit_{number:02d}"
    x = layers.Dropout(0.3, name=f"{name}_dropout")(layers.BatchNormalization(name=f"{name}_norm")(x))
    return layers.Dense(N_CLASSES, name=name)(x)


def rich_data(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    x = {"motion": rng.standard_normal((N, 4, 3)), "place": rng.standard_normal((N, 5))}
    return {name: part.astype(np.float32) for name, part in x.items()}, np.arange(N) % N_CLASSES


Snapshot = dict[str, list[np.ndarray]]


def snapshot(network: keras.Model) -> Snapshot:
    """All variables per layer: weights, statistics, and the random states of dropout."""
    return {layer.name: [np.array(one) for one in layer.variables] for layer in network.layers}


def moved(before: Snapshot, after: Snapshot) -> dict[str, list[bool]]:
    return {
        name: [not np.array_equal(one, other) for one, other in zip(arrays, after[name], strict=True)]
        for name, arrays in before.items()
        if arrays
    }


@dataclass
class Seen:
    """What a callback saw of one phase."""

    before: Snapshot
    optimizer: Any
    slots: list[np.ndarray]
    rates: list[float] = field(default_factory=list)
    after: Snapshot = field(default_factory=dict)


class Watch(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.phases: list[Seen] = []

    def on_train_begin(self, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        slots = [
            np.array(one) for one in optimizer.variables if one.path.rsplit("/", 1)[-1] != "learning_rate"
        ]
        self.phases.append(Seen(snapshot(self.model.network), optimizer, slots))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.phases[-1].rates.append(float(self.model.optimizer.learning_rate))

    def on_train_end(self, logs: Any = None) -> None:
        self.phases[-1].after = snapshot(self.model.network)


@dataclass
class Run:
    model: MultiExitModel
    compiled: Any
    initial: Snapshot
    seen: list[Seen]
    history: Any


# Regime, options, epochs, and the epochs per phase worked out by hand.
RUNS = {
    "disjoint": ({}, 3, (2, 1)),
    "mixed": ({"shares": (1, 2)}, 3, (1, 2)),
    "1-2-3": ({"shares": (1, 2, 1)}, 4, (1, 2, 1)),
    "2-3": ({}, 2, (1, 1)),
    "layerwise": ({}, 3, (1, 1, 1)),
}
EACH_RUN = pytest.mark.parametrize("name", list(RUNS))
PLAIN_RATE = ("2-3",)
# As graphs those that between them have every kind of phase; a few steps cost less than the others' graphs.
GRAPHS = ("1-2-3", "layerwise")


@cache
def run_of(name: str) -> Run:
    """A fit under a regime, once per session: under a schedule, or at a plain rate."""
    options, epochs, _ = RUNS[name]
    keras.utils.set_random_seed(5)
    model = MultiExitModel(rich_network(), make_regime(name, **options))
    rate = 0.02 if name in PLAIN_RATE else keras.optimizers.schedules.CosineDecay(0.02, STEPS * epochs)
    model.compile(optimizer=keras.optimizers.Adam(rate), run_eagerly=name not in GRAPHS)
    compiled, initial, watch = model.optimizer, snapshot(model.network), Watch()
    with leaving_out_the_count():
        history = model.fit(
            *rich_data(),
            batch_size=BATCH,
            epochs=epochs,
            validation_data=rich_data(1),
            callbacks=[watch],
            verbose=0,
        )
    return Run(model, compiled, initial, watch.phases, history)


def learning(phase: Phase) -> set[str]:
    """Names of the layers that learn in a phase of three exits, by the definition of the phases."""
    blocks = {number: set(names) for number, names in BLOCKS.items()}
    heads = {number: set(names) for number, names in HEADS.items()}
    everything = set().union(*blocks.values(), *heads.values())
    match phase.name:
        case "backbone":
            return everything - heads[1] - heads[2]
        case "joint":
            return everything
        case "heads":
            return heads[1] | heads[2]
        case name:
            number = int(name.removeprefix("block_"))
            return blocks[number] | heads[number]


# --- What rests, and what learns ----------------------------------------------------------------------------


def test_anatomy_of_the_rich_network() -> None:
    parts = anatomy(rich_network())
    assert [set(names) for names in parts.blocks] == [set(names) for names in BLOCKS.values()]
    assert [set(names) for names in parts.heads] == [set(names) for names in HEADS.values()]


@EACH_RUN
def test_frozen_layers_rest(name: str) -> None:
    # Weights, batch-norm statistics and the random states of dropout, to the bit.
    run = run_of(name)
    phases = run.model.regime.phases(3)
    assert len(run.seen) == len(phases)
    for phase, seen in zip(phases, run.seen, strict=True):
        expected = {layer: layer in learning(phase) for layer, arrays in run.initial.items() if arrays}
        changes = moved(seen.before, seen.after)
        assert {layer: any(parts) for layer, parts in changes.items()} == expected, phase
        assert all(len(set(parts)) == 1 for parts in changes.values()), (phase, changes)


@EACH_RUN
def test_nothing_moves_between_phases(name: str) -> None:
    run = run_of(name)
    ends = [run.initial, *(seen.after for seen in run.seen)]
    begins = [*(seen.before for seen in run.seen), snapshot(run.model.network)]
    for end, begin in zip(ends, begins, strict=True):
        assert not any(map(any, moved(end, begin).values()))


@pytest.mark.parametrize("name", ["disjoint", "mixed", "1-2-3"])
def test_early_heads_are_fresh_after_the_first_phase(name: str) -> None:
    run = run_of(name)
    changes = moved(run.initial, run.seen[1].before)
    assert not any(any(changes[layer]) for number in (1, 2) for layer in HEADS[number] if layer in changes)


@pytest.mark.parametrize("phase", [heads_phase(3), block_phase(2), block_phase(3)], ids=lambda one: one.name)
def test_frozen_layers_run_in_inference_mode(phase: Phase) -> None:
    network = rich_network()
    x, _ = rich_data()
    seen: dict[str, set[bool]] = {}
    for layer in network.layers:
        if layer._call_has_training_arg:
            _spy(layer, seen)
    parts = anatomy(network)
    ActivePhase(network, parts, phase)(x)
    learns, exits = learning(phase), {name for number in phase.exits for name in HEADS[number]}
    run = {name for name in seen if seen[name]}
    frozen = {name for names in parts.blocks[: phase.frozen_blocks] for name in names}
    assert run == {name for name in seen if name in learns | frozen | exits}
    assert {name: seen[name] == {True} for name in run} == {name: name in learns for name in run}
    assert {name in learns for name in run} == {True, False}


def _spy(layer: Any, seen: dict[str, set[bool]]) -> None:
    call = layer.call
    seen[layer.name] = set()

    def spied(*inputs: Any, training: Any = None, **options: Any) -> Any:
        seen[layer.name].add(bool(training))
        return call(*inputs, training=training, **options)

    layer.call = spied


def test_a_moving_average_of_the_weights_is_refused() -> None:
    # At the end of a fit Keras puts it in the place of all variables, and stops at those that do not learn.
    model = MultiExitModel(dense_network(), "disjoint")
    model.compile(optimizer=keras.optimizers.SGD(0.1, use_ema=True))
    with pytest.raises(InputError, match=r"`optimizer` must not use use_ema .*\(disjoint\).*Received: SGD"):
        model.fit(*dense_data(), epochs=2, verbose=0)


# --- Where phases begin and end -----------------------------------------------------------------------------


@EACH_RUN
def test_phases_begin_at_their_epochs(name: str) -> None:
    _, epochs, lengths = RUNS[name]
    history = run_of(name).history
    column = [number for number, length in enumerate(lengths, start=1) for _ in range(length)]
    assert history.history["phase"] == column
    assert history.epoch == list(range(epochs))
    assert {len(values) for values in history.history.values()} == {epochs}


@EACH_RUN
def test_exits_that_do_not_run_have_no_training_figures(name: str) -> None:
    run = run_of(name)
    for epoch, number in enumerate(run.history.history["phase"]):
        exits = run.model.regime.phases(3)[number - 1].exits
        for exit_ in (1, 2, 3):
            for kind in ("loss", "accuracy"):
                value = run.history.history[f"exit_{exit_:02d}_{kind}"][epoch]
                assert np.isfinite(value) == (exit_ in exits)
                assert np.isfinite(run.history.history[f"val_exit_{exit_:02d}_{kind}"][epoch])


SHARES = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(SHARES, st.integers(0, 60))
def test_epochs_are_divided_by_shares(shares: list[float], more: int) -> None:
    phases = [Phase(f"phase_{number}", (1,), share=share) for number, share in enumerate(shares)]
    epochs = len(phases) + more
    lengths = epochs_per_phase(phases, epochs)
    assert sum(lengths) == epochs
    assert all(length >= 1 for length in lengths)
    # The ends are within half an epoch of the exact ones, unless a phase would be left without any.
    exact = epochs * np.cumsum(shares) / sum(shares)
    if np.diff([0.0, *exact]).min() >= 1.5:
        assert np.abs(np.cumsum(lengths) - exact).max() <= 0.5 + 1e-6
    # A larger share never gets fewer epochs by more than what rounding takes.
    for (one, length), (other, longer) in pairwise(sorted(zip(shares, lengths, strict=True))):
        assert length <= longer + 1 or one == other or min(lengths) == 1


@given(st.integers(1, 6), st.integers(1, 10))
def test_equal_shares_divide_evenly(n_phases: int, each: int) -> None:
    phases = [Phase(f"phase_{number}", (1,)) for number in range(n_phases)]
    assert epochs_per_phase(phases, n_phases * each) == (each,) * n_phases


def test_fewer_epochs_than_phases_are_refused() -> None:
    message = r"`epochs` must be at least the number of phases \(3: backbone, joint, heads\). Received: 2"
    with pytest.raises(InputError, match=message):
        compiled("1-2-3").fit(*dense_data(), epochs=2, verbose=0)


def test_an_initial_epoch_with_phases_is_refused() -> None:
    with pytest.raises(InputError, match=r"`initial_epoch` must be 0 .*\(mixed\). Received: 1.*`checkpoint`"):
        compiled("mixed").fit(*dense_data(), epochs=4, initial_epoch=1, verbose=0)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1.0,), r"`shares` needs one value per phase \(2\). Received: \[1.0\]"),
        ((1.0, 0.0), "`shares` must be positive and finite. Received: 0.0"),
        ((1.0, -1.0), "`shares` must be positive"),
        ((1.0, np.inf), "`shares` must be positive and finite. Received: inf"),
        ((1.0, np.nan), "`shares` must be positive and finite. Received: nan"),
    ],
)
def test_shares_are_checked(shares: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mixed(shares=shares)


@pytest.mark.parametrize(
    "regime", ["disjoint", "mixed", "1-2-3", "2-3", "layerwise", "alternating", "boosted", "distill"]
)
def test_regimes_of_several_exits_refuse_one(regime: str) -> None:
    with pytest.raises(InputError, match=r"`network` needs at least 2 exits .* Received: 1\. .*`joint`"):
        MultiExitModel(one_exit_network(), regime)


# --- Optimizers and schedules -------------------------------------------------------------------------------


@EACH_RUN
def test_every_phase_has_an_optimizer_of_its_own(name: str) -> None:
    run = run_of(name)
    optimizers = [seen.optimizer for seen in run.seen]
    assert len({id(one) for one in (run.compiled, *optimizers)}) == len(optimizers) + 1
    for seen in run.seen:
        assert len(seen.slots) > 2 * len(run.model.network.trainable_variables)
        assert all(not array.any() for array in seen.slots)
        assert int(seen.optimizer.iterations) == len(seen.rates)
    assert run.model.optimizer is run.compiled
    assert int(run.compiled.iterations) == 0


@EACH_RUN
def test_schedules_are_rescaled_to_the_phase(name: str) -> None:
    run = run_of(name)
    _, epochs, lengths = RUNS[name]
    for seen, length in zip(run.seen, lengths, strict=True):
        steps = length * STEPS
        assert len(seen.rates) == steps
        if name in PLAIN_RATE:
            assert seen.rates == [pytest.approx(0.02, rel=1e-6)] * steps
            continue
        # CosineDecay over the whole training, read at the same share of it.
        done = [int(step * epochs / length + 1e-9) / (epochs * STEPS) for step in range(steps)]
        assert done[0] == 0.0
        assert 1 - done[-1] == pytest.approx(1 / steps, abs=1 / (epochs * STEPS))
        expected = [0.01 * (1 + np.cos(np.pi * share)) for share in done]
        np.testing.assert_allclose(seen.rates, expected, rtol=1e-4)


def test_a_model_trained_in_phases_is_saved_whole(tmp_path: Path) -> None:
    # Warnings are errors: a file that does not fit the optimizer would warn.
    run = run_of("1-2-3")
    run.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.get_config() == run.compiled.get_config()
    assert_predicts_the_same(again, run.model, rich_data(2)[0])


def test_a_file_saved_inside_a_phase_is_whole(tmp_path: Path) -> None:
    model = compiled("2-3")
    path = str(tmp_path / "{epoch}.keras")
    callbacks = [keras.callbacks.ModelCheckpoint(path)]
    model.fit(*dense_data(), epochs=2, batch_size=BATCH, callbacks=callbacks, verbose=0)
    again = keras.saving.load_model(tmp_path / "2.keras")
    assert_predicts_the_same(again, model, dense_data()[0])


def assert_predicts_the_same(one: MultiExitModel, other: MultiExitModel, x: Any) -> None:
    one.run_eagerly = other.run_eagerly = True
    expected = other.predict(x, verbose=0)
    for exit_, logits in one.predict(x, verbose=0).items():
        np.testing.assert_array_equal(logits, expected[exit_])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 20))
def test_a_rescaled_schedule_ends_with_its_phase(length: int, more: int, steps: int) -> None:
    epochs = length + more

    class Count(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return step

        def get_config(self) -> dict[str, Any]:
            return {}

    rescaled = RescaledSchedule(Count(), epochs / length)
    for step in (0, steps * length - 1, steps * length):
        assert abs(int(rescaled(np.int64(step))) - step * epochs / length) <= 1
    assert int(rescaled(np.int64(steps * length))) >= steps * epochs - 1


def test_the_learning_rate_is_logged_as_keras_does() -> None:
    model = compiled("2-3")
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1))
    history = model.fit(*dense_data(), epochs=3, callbacks=[callback], verbose=0).history
    np.testing.assert_allclose(history["learning_rate"], [0.5, 0.25, 0.5 / 3], rtol=1e-6)


# --- Blocks and heads ---------------------------------------------------------------------------------------


def one_exit_network() -> keras.Model:
    window = keras.Input((6,))
    return keras.Model(
        window, {"exit_01": layers.Dense(3, name="exit_01")(layers.Dense(4, name="one")(window))}
    )


def dense_network(n_exits: int = 2) -> keras.Model:
    """Dense(6 -> 5) and a head per exit, without anything random."""
    x = window = keras.Input((6,), name="window")
    outputs = {}
    for number, name in enumerate(("one", "two", "three")[:n_exits], start=1):
        x = layers.Dense(5, activation="tanh", name=name)(x)
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(x)
    return keras.Model(window, outputs)


def cascaded(reads: dict[int, int]) -> keras.Model:
    """Three exits; exit e also reads the logits of exit reads[e]."""
    x = window = keras.Input((6,), name="window")
    outputs: dict[str, Any] = {}
    for number, name in enumerate(("one", "two", "three"), start=1):
        x = layers.Dense(5, activation="tanh", name=name)(x)
        features = x
        if number in reads:
            earlier = outputs[f"exit_{reads[number]:02d}"]
            features = layers.Concatenate(name=f"exit_{number:02d}_joined")([x, earlier])
        outputs[f"exit_{number:02d}"] = layers.Dense(N_CLASSES, name=f"exit_{number:02d}")(features)
    return keras.Model(window, outputs)


def dense_data(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6)).astype(np.float32), np.arange(n) % N_CLASSES


def compiled(
    regime: Any = "joint", network: Any = None, rate: float = 0.05, *, graph: bool = False
) -> MultiExitModel:
    keras.utils.set_random_seed(7)
    model = MultiExitModel(network or dense_network(), regime)
    model.compile(optimizer=keras.optimizers.SGD(rate), run_eagerly=not graph)
    return model


CHAIN = (("one",), ("two",), ("three",))
CHAIN_HEADS = (("exit_01",), ("exit_02",), ("exit_03",))


@pytest.mark.parametrize(
    ("network", "blocks", "heads"),
    [
        (lambda: dense_network(3), CHAIN, CHAIN_HEADS),
        (one_exit_network, (("one",),), (("exit_01",),)),
        # A sum has no weights and belongs to its own head: no gradient goes through it to earlier exits.
        (lambda: add_running_sums(dense_network(3), 0.5), CHAIN, CHAIN_HEADS),
        (
            lambda: cascaded({3: 2}),
            (("one",), ("two", "exit_02"), ("three", "exit_03_joined")),
            (("exit_01",), (), ("exit_03",)),
        ),
        (
            lambda: cascaded({2: 1}),
            (("one", "exit_01"), ("two",), ("three",)),
            ((), ("exit_02_joined", "exit_02"), ("exit_03",)),
        ),
    ],
    ids=["plain", "one exit", "boosted", "cascaded into the final", "cascaded early"],
)
def test_anatomy(network: Any, blocks: tuple, heads: tuple) -> None:
    parts = anatomy(network())
    assert parts.exits == tuple(f"exit_{number:02d}" for number in range(1, len(blocks) + 1))
    assert parts.blocks == blocks
    assert parts.heads == heads


@pytest.mark.parametrize("make", [residual_network, long_skip_network, cascaded_network])
def test_anatomy_of_branched_networks(make: Any) -> None:
    network = make()
    parts = anatomy(network)
    outputs = {exit_: set(_ancestors(network, exit_)) for exit_ in parts.exits}
    every = [name for names in (*parts.blocks, *parts.heads) for name in names]
    assert len(every) == len(set(every))
    assert set(every) == set.union(*outputs.values())
    for place, (exit_, block, head) in enumerate(zip(parts.exits, parts.blocks, parts.heads, strict=True)):
        later = set().union(*(outputs[other] for other in parts.exits[place + 1 :]))
        earlier = set().union(*(outputs[other] for other in parts.exits[:place]))
        assert set(head) <= outputs[exit_] - later - earlier
        assert set(block) <= outputs[exit_]
        if later:
            assert set(block) <= later
            assert set(head) == outputs[exit_] - later - earlier
        assert not set(block) & set().union(*map(set, parts.blocks[:place]))
    assert [name for name in parts.heads[-1] if network.get_layer(name).weights] == list(parts.heads[-1])


def _ancestors(network: keras.Model, exit_: str) -> list[str]:
    """Names of the layers an exit needs, by a walk of our own through Keras' history."""
    pending, found = [network.output[exit_]], []
    while pending:
        operation, node_index, _ = pending.pop()._keras_history
        if operation.name in found or isinstance(operation, layers.InputLayer):
            continue
        found.append(operation.name)
        pending.extend(operation._inbound_nodes[node_index].input_tensors)
    return found


def test_the_long_skip_and_the_residual_belong_to_the_blocks() -> None:
    for make in (residual_network, long_skip_network):
        network = make()
        parts = anatomy(network)
        adds = [layer.name for layer in network.layers if isinstance(layer, layers.Add | layers.Concatenate)]
        backbone = [name for name in adds if any(name in block for block in parts.blocks)]
        assert backbone, adds


def test_a_phase_without_anything_that_learns_is_refused() -> None:
    # The final exit reads the logits of the only early one: that head is part of the plain network.
    x = window = keras.Input((6,))
    first = layers.Dense(N_CLASSES, name="exit_01")(layers.Dense(5, name="one")(x))
    final = layers.Dense(N_CLASSES, name="exit_02")(layers.Concatenate()([window, first]))
    network = keras.Model(window, {"exit_01": first, "exit_02": final})
    for regime in ("disjoint", "2-3", "1-2-3"):
        model = compiled(regime, network)
        message = r"weights that learn in the phase 'heads' \(exit_01\). Received: none; .*`joint`"
        with pytest.raises(InputError, match=message):
            model.fit(*dense_data(), epochs=3, verbose=0)


def test_early_heads_that_read_each_other_learn_together() -> None:
    # exit_02 reads the logits of exit_01, the final exit reads neither: both heads learn in the last phase.
    model = compiled("disjoint", cascaded({2: 1}))
    watch = Watch()
    model.fit(*dense_data(), batch_size=BATCH, epochs=2, callbacks=[watch], verbose=0)
    changed = [
        {layer for layer, parts in moved(seen.before, seen.after).items() if any(parts)}
        for seen in watch.phases
    ]
    assert changed == [{"one", "two", "three", "exit_03"}, {"exit_01", "exit_02"}]


# --- Early stopping -----------------------------------------------------------------------------------------


class Script(keras.callbacks.Callback):
    """Puts validation losses that are known beforehand in the place of the real ones, and keeps the weights.

    Args:
        losses: per epoch, of exit_01, exit_02, ...
    """

    def __init__(self, *losses: tuple[float, ...]) -> None:
        super().__init__()
        self.losses = losses
        self.kept: list[Snapshot] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for number, loss in enumerate(self.losses[epoch], start=1):
            logs[f"val_exit_{number:02d}_loss"] = loss
        self.kept.append(snapshot(self.model.network))


def stopped(regime: Any, script: Script, epochs: int, *more: Any, graph: bool = False, **options: Any) -> Any:
    model = compiled(regime, graph=graph)
    stop = MultiExitEarlyStopping(**options)
    history = model.fit(
        *dense_data(),
        batch_size=BATCH,
        epochs=epochs,
        validation_data=dense_data(1),
        callbacks=[script, stop, *more],
        verbose=0,
    )
    return model, history


def assert_layers_equal(model: MultiExitModel, kept: Snapshot, *names: str) -> None:
    now = snapshot(model.network)
    for name in names or now:
        for one, other in zip(now[name], kept[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_phase_ends_when_every_exit_has_run_out() -> None:
    # exit_01 never improves after epoch 1; exit_02 does at epochs 1 to 4: its counter decides.
    losses = [(1.0, 5.0), (2.0, 4.0), (2.0, 3.0), (2.0, 2.0), (2.0, 2.5), (2.0, 2.5), (0.0, 0.0)]
    script = Script(*losses)
    model, history = stopped("joint", script, 7, patience=2)
    assert history.epoch == [0, 1, 2, 3, 4, 5]
    # The lowest mean, 4 / 2, is that of epoch 4.
    assert_layers_equal(model, script.kept[3])
    assert any(map(any, moved(script.kept[3], script.kept[5]).values()))


def test_the_smallest_improvement_counts_for_the_counters_alone() -> None:
    script = Script((1.0, 1.0), (0.95, 0.95), (0.92, 0.94), (0.0, 0.0))
    model, history = stopped("joint", script, 4, patience=2, min_delta=0.1)
    assert len(history.epoch) == 3
    assert_layers_equal(model, script.kept[2])


def test_heads_on_a_frozen_backbone_go_back_each_to_its_own_best() -> None:
    model = compiled("2-3", dense_network(3))
    # Phase 1: best mean at its epoch 2. Phase 2: exit_01 best at epoch 4, exit_02 at epoch 5.
    script = Script((3, 3, 3), (1, 1, 1), (2, 2, 2), (0.5, 2, 9), (0.9, 1, 9), (0.7, 3, 9))
    model.fit(
        *dense_data(),
        batch_size=BATCH,
        epochs=6,
        validation_data=dense_data(1),
        callbacks=[script, MultiExitEarlyStopping()],
        verbose=0,
    )
    assert_layers_equal(model, script.kept[1], "one", "two", "three", "exit_03")
    assert_layers_equal(model, script.kept[3], "exit_01")
    assert_layers_equal(model, script.kept[4], "exit_02")
    assert all(any(moved(script.kept[3], script.kept[4])[name]) for name in ("exit_01", "exit_02"))


def test_the_best_is_chosen_among_the_last_share() -> None:
    script = Script((0.1, 0.1), (0.2, 0.2), (0.9, 0.9), (0.5, 0.5), (0.6, 0.6))
    model, history = stopped("joint", script, 5, last_share=0.5)
    assert len(history.epoch) == 5
    # int(5 * 0.5) = 2 epochs are left out.
    assert_layers_equal(model, script.kept[3])


def test_without_restoring_the_last_epoch_stays() -> None:
    script = Script((0.1, 0.1), (0.2, 0.2))
    model, _ = stopped("joint", script, 2, restore_best=False)
    assert_layers_equal(model, script.kept[1])


def test_the_next_phase_follows_an_early_end() -> None:
    # Phase 1 of mixed trains exit_02 alone: the counter of exit_01 must not hold it.
    up = (1.0, 1.0), (0.5, 2.0)
    script = Script(*up, (3.0, 3.0), (2.0, 2.0), (2.5, 2.5))
    # As a graph: the functions of phase 1 must not be those of phase 2.
    model, history = stopped("mixed", script, 6, graph=True, patience=1)
    assert history.epoch == [0, 1, 2, 3, 4]
    assert history.history["phase"] == [1, 1, 2, 2, 2]
    assert [cost.epochs for cost in model.training_cost] == [2, 3]
    assert [cost.steps for cost in model.training_cost] == [2 * STEPS, 3 * STEPS]
    assert_layers_equal(model, script.kept[3])


def test_the_second_phase_begins_at_the_best_of_the_first() -> None:
    script, watch = Script((0.0, 0.5), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)), Watch()
    stopped("mixed", script, 4, watch)
    before = watch.phases[1].before
    assert not any(map(any, moved(script.kept[0], before).values()))
    assert any(map(any, moved(script.kept[1], before).values()))


class Falling(keras.callbacks.Callback):
    """A validation accuracy that falls from the first epoch on."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_exit_02_accuracy"] = 1 / (epoch + 1)


def test_early_stopping_of_keras_ends_a_phase_too() -> None:
    stop = keras.callbacks.EarlyStopping("val_exit_02_accuracy", mode="max", patience=1)
    history = compiled("mixed").fit(
        *dense_data(),
        batch_size=BATCH,
        epochs=8,
        validation_data=dense_data(1),
        callbacks=[Falling(), stop],
        verbose=0,
    )
    assert history.history["phase"] == [1, 1, 2, 2]
    assert history.epoch == [0, 1, 2, 3]


@pytest.mark.parametrize("options", [{"validation_data": None}, {"validation_freq": 2}])
def test_early_stopping_needs_validation_in_every_epoch(options: dict[str, Any]) -> None:
    data = {"validation_data": dense_data(1), **options}
    with pytest.raises(InputError, match="`validation_data` must be given to `fit` in every epoch"):
        compiled().fit(*dense_data(), epochs=3, callbacks=[MultiExitEarlyStopping()], verbose=0, **data)


@pytest.mark.parametrize("options", [{"patience": 0}, {"last_share": 1.5}, {"last_share": -0.1}])
def test_options_of_early_stopping_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(options))}` must be at"):
        MultiExitEarlyStopping(**options)


# --- What a training costs ----------------------------------------------------------------------------------

# Multiply-accumulates per window of `dense_network()`.
ONE, TWO, HEAD = 6 * 5, 5 * 5, 5 * N_CLASSES
# Phase -> forward, backward. Every layer that learns has a gradient of its weights; the gradient of its input
# is computed only where something learns below, so never for the first layer.
BY_HAND = {
    "backbone": (ONE + TWO + HEAD, ONE + 2 * TWO + 2 * HEAD),
    "joint": (ONE + TWO + 2 * HEAD, ONE + 2 * TWO + 4 * HEAD),
    "heads": (ONE + HEAD, HEAD),
    "block_01": (ONE + HEAD, ONE + 2 * HEAD),
    "block_02": (ONE + TWO + HEAD, TWO + 2 * HEAD),
}


@pytest.mark.parametrize(
    ("regime", "lengths"), [(OneTwoThree(shares=(1, 2, 1)), (1, 2, 1)), ("layerwise", (2, 2))]
)
def test_costs_are_counted_per_phase(regime: Any, lengths: tuple[int, ...]) -> None:
    model = compiled(regime)
    # 22 windows: the last step of an epoch has 6.
    model.fit(*dense_data(n=22), batch_size=BATCH, epochs=4, verbose=0)
    assert [cost.phase for cost in model.training_cost] == [phase.name for phase in model.regime.phases(2)]
    for cost, epochs in zip(model.training_cost, lengths, strict=True):
        assert (cost.epochs, cost.steps, cost.windows) == (epochs, 3 * epochs, 22 * epochs)
        forward, backward = BY_HAND[cost.phase]
        assert (cost.forward_macs, cost.backward_macs) == (forward * 22 * epochs, backward * 22 * epochs)
        assert cost.measured_seconds > 0
        if sys.platform == "linux":
            assert isinstance(cost.measured_peak_memory_bytes, int)
            assert cost.measured_peak_memory_bytes > 2**20

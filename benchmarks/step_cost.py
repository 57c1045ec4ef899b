"""What a training step costs beside a joint step, as ratios measured by turns.

    python benchmarks/step_cost.py [--turns N] [--steps N]

Every row is a network of its own, compiled as `fit` compiles it, on the same batches of 64 HAPT windows. In
each turn every row does the same number of steps, one row after the other in an order that changes, in one
process; a figure is the median over the turns of the ratio to the joint row of the same turn, with quartiles.
The row `minimal loop` is a tf.function written by hand that does the arithmetic of the joint step (losses and
accuracies per exit, gradient, optimizer) without Keras around it. Forward and backward multiply-accumulates
are counted in the graph of the step. The row `joint over minimal loop` has the ratio to the minimal loop
instead: what Keras and the package add. Writes benchmarks/results/step_cost.csv; a median over its limit is
named and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import keras
import numpy as np
import tables
import tensorflow as tf

import mexit_edge as mx
from mexit_edge.regimes import Boosted, Consistency, Distill, Joint, Regime, Weighted
from mexit_edge.regimes.cost import per_window
from mexit_edge.regimes.sources import make_source, specs_of

RESULTS = Path(__file__).parent / "results" / "step_cost.csv"
BATCH = 64
OVERHEAD = "joint over minimal loop"
LIMITS = {
    OVERHEAD: 1.05,
    "boosted": 1.15,
    "distill": 1.15,
    "consistency": 2.2,
    "weighted, meta_interval 1": 4.5,
    "weighted, meta_interval 10": 1.8,
}
ROWS: dict[str, Regime] = {
    "joint": Joint(),
    "boosted": Boosted(),
    "distill": Distill(),
    "consistency": Consistency(),
    "weighted, meta_interval 1": Weighted(),
    "weighted, meta_interval 10": Weighted(meta_interval=10),
    "weighted, heads, meta_interval 1": Weighted(pseudo_step="heads"),
}


def steps_of(regime: Regime, windows: Any, n_steps: int) -> tuple[Callable[[], None], Any]:
    """Return a function that does some steps on prepared batches, and the counted cost per window."""
    keras.utils.set_random_seed(0)
    network = mx.models.build("dscnn", windows.sensor, windows.n_classes)
    model = mx.MultiExitModel(network, regime)
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-3), steps_per_execution=n_steps)
    source = make_source(model, windows, None, BATCH, None, None, None)
    model.optimizer.build(model.trainable_variables)
    x, y, n = specs_of(source, model.network, twins=regime.perturbs)
    macs = per_window(regime.step_macs(model, x, y), n)
    batches = [source.data["x"][number] for number in range(n_steps)]
    dataset = tf.data.Dataset.from_tensor_slices(
        tuple(np.stack([batch[part] for batch in batches]) for part in range(2))
    ).cache()
    model.make_train_function()

    def run() -> None:
        model.reset_metrics()
        model.train_function(iter(dataset))

    return run, macs


def minimal_loop(windows: Any, n_steps: int) -> Callable[[], None]:
    """Return the same for a hand-written step with the arithmetic of a joint one."""
    keras.utils.set_random_seed(0)
    network = mx.models.build("dscnn", windows.sensor, windows.n_classes)
    model = mx.MultiExitModel(network, Joint())
    source = make_source(model, windows, None, BATCH, None, None, None)
    batches = [source.data["x"][number] for number in range(n_steps)]
    dataset = tf.data.Dataset.from_tensor_slices(
        tuple(np.stack([batch[part] for batch in batches]) for part in range(2))
    ).cache()
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=1e-3)
    optimizer.build(network.trainable_variables)
    exits = sorted(network.output)
    totals = tf.Variable(tf.zeros((2, len(exits))), trainable=False)

    @tf.function(reduce_retracing=True)
    def steps(iterator: Any) -> None:
        for _ in tf.range(n_steps):
            x, y = next(iterator)
            with tf.GradientTape() as tape:
                outputs = network(x, training=True)
                logits = [outputs[exit_] for exit_ in exits]
                losses = [
                    tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=one))
                    for one in logits
                ]
                loss = tf.add_n(losses) / len(exits)
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
            right = [tf.reduce_mean(tf.cast(tf.argmax(one, 1) == y, tf.float32)) for one in logits]
            totals.assign_add(tf.stack([tf.stack(losses), tf.stack(right)]))

    def run() -> None:
        steps(iter(dataset))

    return run


def one_row(
    name: str, own: list[float], other: list[float], *, measured_step_ms: float | str = "", macs: Any = None
) -> dict[str, Any]:
    """Return a row of the table: the ratio of two rows' seconds, turn by turn."""
    ratios = [one / two for one, two in zip(own, other, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "row": name,
        "measured_step_ms": measured_step_ms,
        "ratio": round(median(ratios), 3),
        "lower_quartile": round(low, 3),
        "upper_quartile": round(high, 3),
        "limit": LIMITS.get(name, ""),
        "forward_macs_per_window": "" if macs is None else round(macs[0]),
        "backward_macs_per_window": "" if macs is None else round(macs[1]),
        "turns": len(ratios),
        "batch": BATCH,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--steps", type=int, default=10, help="per row and turn")
    options = parser.parse_args()
    windows = mx.data.load("hapt")
    windows = windows.take(np.arange(0, len(windows), 4))
    rows: dict[str, Callable[[], None]] = {"minimal loop": minimal_loop(windows, options.steps)}
    macs: dict[str, Any] = {"minimal loop": None}
    for name, regime in ROWS.items():
        rows[name], macs[name] = steps_of(regime, windows, options.steps)
    for run in rows.values():
        run()  # traces
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    rng = np.random.default_rng(0)
    for _ in range(options.turns):
        for name in rng.permutation(list(rows)):
            started = perf_counter()
            rows[name]()
            seconds[name].append((perf_counter() - started) / options.steps)
    table = [
        one_row(name, own, seconds["joint"], measured_step_ms=round(1e3 * median(own), 2), macs=macs[name])
        for name, own in seconds.items()
    ]
    table.insert(1, one_row(OVERHEAD, seconds["joint"], seconds["minimal loop"]))
    tables.write(RESULTS, table)
    for row in table:
        print(
            f"{row['row']:34} {row['measured_step_ms']:>8} ms  {row['ratio']:6.3f} "
            f"[{row['lower_quartile']:.3f}, {row['upper_quartile']:.3f}]  limit {row['limit']}"
        )
    exceeded = [row for row in table if row["limit"] and row["ratio"] > row["limit"]]
    for row in exceeded:
        print(f"{row['row']}: {row['ratio']:.3f} exceeds its limit of {row['limit']}", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())

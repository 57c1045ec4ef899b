"""Learned sample weights: a small network weighs windows and exits, taught by their use at inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from mexit_edge.errors import InputError
from mexit_edge.regimes.assignment import exit_shares, smallest_batch
from mexit_edge.regimes.gradient_step import gradient_step
from mexit_edge.regimes.losses import cross_entropies, weighted_mean
from mexit_edge.regimes.macs import StepMacs, traced_macs
from mexit_edge.regimes.meta_gradient import meta_gradients
from mexit_edge.regimes.pseudo_step import check_pseudo_step
from mexit_edge.regimes.regime import (
    ExitOutputs,
    Regime,
    RegimeState,
    require_at_least_0,
    require_one_of,
    require_positive,
)
from mexit_edge.regimes.weight_network import CENTRES, build_weight_network, sample_weights

ALL, HEADS = "all", "heads"


class WeightedState(RegimeState):
    """Keeps the weight network and its optimizer.

    Args:
        n_exits: number of exits.
        hidden: units of the network's hidden layer.
        learning_rate: of its Adam.
        weight_decay: likewise.
        seed: of its weights.
    """

    def __init__(
        self, n_exits: int, hidden: int, learning_rate: float, weight_decay: float, seed: int
    ) -> None:
        super().__init__(n_exits)
        self.weight_network = build_weight_network(n_exits, hidden, seed)
        self.weight_optimizer = keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None)
        self.weight_optimizer.build(self.weight_network.trainable_variables)

    @property
    def optimizer_variables(self) -> list[Any]:
        """See `RegimeState`."""
        return self.weight_optimizer.variables


@dataclass(frozen=True, kw_only=True)
class Weighted(Regime):
    """L = E sum_e w_e mean_b(W_e(l_b) l_be): a weight network W turns a window's losses into weights.

    A batch is split in halves, which play both roles by turns. Every ``meta_interval`` steps W learns: the
    train half makes a pseudo step of the real optimizer, the network after it is judged on the meta half,
    each exit on the windows that budgeted inference would leave to it, and the gradient goes through the
    pseudo step into W. Then the train half makes its real step with the weights of W. So a batch makes two
    updates of half a batch each; schedules are stretched accordingly.

    Args:
        p: exit e answers for a share q_e = p^e / sum_j p^j of the meta half; below 1 for small budgets.
        eps: how far weights may stray from 1; .8 for small tasks and .3 for large ones in the paper.
        centre: what weights are centred over: ``per_sample``, ``per_exit`` or ``global``.
        hidden: units of the weight network, 100 to 500 in the paper.
        learning_rate: of the weight network's Adam.
        weight_decay: of the weight network, decoupled.
        meta_interval: steps from one lesson of W to the next.
        pseudo_step: ``all`` variables make the pseudo step, or the ``heads`` alone, which is cheaper.
        balance_classes: whether every class of the meta half counts alike in the meta loss.
        swap: whether the halves swap roles; without, half of every batch serves as meta half alone.

    Raises:
        InputError: an option is out of its range.

    Reference:
        Han et al., "Learning to Weight Samples for Dynamic Early-exiting Networks", arXiv 2209.08310.
        Clipping of weights at 0 and the last two options are ours.
    """

    name = "weighted"
    min_exits: ClassVar[int] = 2
    needs_full_batches: ClassVar[bool] = True

    p: float = 0.75
    eps: float = 0.8
    centre: str = "per_sample"
    hidden: int = 100
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    meta_interval: int = 1
    pseudo_step: str = ALL
    balance_classes: bool = False
    swap: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        exit_shares(2, self.p)
        require_positive("eps", self.eps)
        require_one_of("centre", self.centre, tuple(CENTRES))
        require_one_of("pseudo_step", self.pseudo_step, (ALL, HEADS))
        for argument in ("hidden", "learning_rate", "meta_interval"):
            require_positive(argument, getattr(self, argument))
        require_at_least_0("weight_decay", self.weight_decay)
        for argument in ("hidden", "meta_interval"):
            if not float(getattr(self, argument)).is_integer():
                raise InputError(f"`{argument}` must be a whole number. Received: {getattr(self, argument)}.")
            object.__setattr__(self, argument, int(getattr(self, argument)))

    @property
    def updates_per_step(self) -> int:
        """See `Regime.updates_per_step`."""
        return 2 if self.swap else 1

    def make_state(self, n_exits: int, seed: int = 0) -> RegimeState:
        """See `Regime.make_state`."""
        return WeightedState(n_exits, self.hidden, self.learning_rate, self.weight_decay, seed)

    def check_fit(self, model: Any, batch_size: int | None) -> None:
        """See `Regime.check_fit`."""
        check_pseudo_step(model.optimizer)
        smallest = 2 * smallest_batch(len(model.exits), self.p)
        rule = (
            f"`batch_size` must be even and at least {smallest} for the regime `weighted` with "
            f"{len(model.exits)} exits and p={self.p}: half a batch needs a window for every exit."
        )
        if batch_size is None:
            raise InputError(
                f"{rule} Received: a data set whose batches may differ. Use `batch(n, drop_remainder=True)`."
            )
        if batch_size % 2 or batch_size < smallest:
            raise InputError(f"{rule} Received: {batch_size}.")

    def loss(self, outputs: ExitOutputs) -> Any:
        """See `Regime.loss`."""
        per_exit = cross_entropies(outputs.logits, outputs.y, self.label_smoothing)
        fixed = tf.stop_gradient(per_exit)
        learned = sample_weights(outputs.state.weight_network(fixed), self.eps, self.centre)
        weights = (
            tf.stop_gradient(learned)
            * outputs.n_exits
            * self.weights_of(tf.reduce_mean(fixed, axis=0), outputs)
        )
        return weighted_mean(tf.reduce_sum(weights * per_exit, axis=1), outputs.sample_weight)

    def step(self, model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[dict[str, Any], Any]:
        """See `Regime.step`."""
        first, second = _halves(x, y, sample_weight)
        turns = [(first, second), (second, first)] if self.swap else [(first, second)]
        predictions, losses = [], []
        for train_half, meta_half in turns:
            self._teach_when_due(model, train_half, meta_half)
            predicted, loss = gradient_step(model, *train_half)
            predictions.append(predicted)
            losses.append(loss)
        if not self.swap:
            predictions.append(model(second[0], training=False))
        y_pred = {exit_: tf.concat([one[exit_] for one in predictions], axis=0) for exit_ in model.exits}
        return y_pred, tf.add_n(losses) / len(losses)

    def step_macs(self, model: Any, x: Any, y: Any) -> StepMacs | None:
        """See `Regime.step_macs`; a lesson counts by its share of the steps."""
        half_x, half_y = keras.tree.map_structure(_half_of, (x, y))
        update = traced_macs(
            lambda samples, labels: gradient_step(model, samples, labels, None), half_x, half_y
        )
        lesson = traced_macs(
            lambda *halves: self._teach(model, (*halves[:2], None), (*halves[2:], None)),
            *(half_x, half_y, half_x, half_y),
        )
        if update is None or lesson is None:
            return None
        n_turns = self.updates_per_step
        total = update * n_turns + lesson * (n_turns / self.meta_interval)
        if self.swap:
            return total
        # The meta half runs once more for its figures.
        figures = traced_macs(lambda samples: model(samples, training=False), half_x)
        return None if figures is None else total + figures

    def _teach_when_due(self, model: Any, train_half: Any, meta_half: Any) -> None:
        if self.meta_interval == 1:
            self._teach(model, train_half, meta_half)
            return
        due = tf.equal(tf.convert_to_tensor(model.step) % self.meta_interval, 0)
        tf.cond(due, lambda: self._teach(model, train_half, meta_half), lambda: tf.constant(0.0))

    def _teach(self, model: Any, train_half: Any, meta_half: Any) -> Any:
        """Let the weight network learn from one pair of halves; return the meta loss."""
        state = model.regime_state
        x, y, sample_weight = meta_half
        if self.balance_classes:
            balanced = _balanced(y, model.n_classes)
            sample_weight = balanced if sample_weight is None else balanced * sample_weight
        heads = [name for head in model.anatomy.heads for name in head]
        meta_loss, gradients = meta_gradients(
            model.active.network,
            model.optimizer,
            state.weight_network,
            train_half,
            (x, y, sample_weight),
            p=self.p,
            eps=self.eps,
            centre=self.centre,
            label_smoothing=self.label_smoothing,
            exit_factors=len(model.exits) * self.present_weights(model.exit_outputs(None, y, None)),
            gradient_factors=model.equilibrium(model.trainable_weights)
            if self.gradient_equilibrium
            else None,
            variables=None
            if self.pseudo_step == ALL
            else [one for name in heads for one in model.network.get_layer(name).trainable_variables],
        )
        state.weight_optimizer.apply_gradients(
            zip(gradients, state.weight_network.trainable_variables, strict=True)
        )
        return meta_loss


def _halves(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Return (x, y, sample_weight) of both halves of a batch."""
    n = tf.shape(y)[0] // 2

    def first(tensor: Any) -> Any:
        return None if tensor is None else tensor[:n]

    def second(tensor: Any) -> Any:
        return None if tensor is None else tensor[n : 2 * n]

    whole = (x, y, sample_weight)
    return (
        keras.tree.map_structure(first, whole),
        keras.tree.map_structure(second, whole),
    )


def _half_of(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec((spec.shape[0] // 2, *spec.shape[1:]), spec.dtype)


def _balanced(y: Any, n_classes: int) -> Any:
    """Return weights (n,) of mean 1 that make all classes present count alike."""
    counts = tf.math.bincount(tf.cast(y, tf.int32), minlength=n_classes, maxlength=n_classes)
    counts = tf.cast(counts, tf.float32)
    n_present = tf.math.count_nonzero(counts, dtype=tf.float32)
    return tf.cast(tf.shape(y)[0], tf.float32) / (n_present * tf.gather(counts, tf.cast(y, tf.int32)))

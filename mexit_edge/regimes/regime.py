"""What a training regime is: phases, a loss over the exits, and the options that all regimes share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import keras

from mexit_edge.errors import InputError, unknown_name
from mexit_edge.models.heads import exit_name
from mexit_edge.regimes.exit_weights import (
    INVERSE_RUNNING_LOSS,
    SDN,
    UNIFORM,
    ExitWeights,
    checked_exit_weights,
    exit_weights_at,
)
from mexit_edge.regimes.gradient_step import gradient_step
from mexit_edge.regimes.losses import cross_entropies, weighted_mean
from mexit_edge.regimes.macs import traced_macs
from mexit_edge.regimes.phases import Phase, joint_phase

REGIMES: dict[str, type[Regime]] = {}
RUNNING_LOSS_MOMENTUM = 0.9


class RegimeState(keras.layers.Layer):
    """What a regime remembers from step to step; part of the model, so that files and checkpoints have it.

    Args:
        n_exits: number of exits.
    """

    def __init__(self, n_exits: int) -> None:
        super().__init__(name="regime_state")
        self.running_losses = [
            self.add_weight(
                shape=(), initializer="ones", trainable=False, name=f"{exit_name(number)}_running_loss"
            )
            for number in range(1, n_exits + 1)
        ]

    @property
    def optimizer_variables(self) -> list[Any]:
        """Variables of an optimizer of the regime's own."""
        return []


@dataclass(frozen=True, eq=False)
class ExitOutputs:
    """What the loss of a training step is computed from.

    Args:
        logits: (batch, exits of the phase, classes); twice the batch where the regime perturbs: first all
            windows as they are, then all perturbed.
        y: (batch,) class indices.
        sample_weight: (batch,), or None.
        exits: numbers of the phase's exits, from 1.
        n_exits: number of exits of the whole network.
        weighted: whether the weights of exits apply in this phase.
        step: number of this step in its phase, from 0, a scalar.
        progress: share of the phase's steps that is done, a scalar from 0 to 1.
        state: of the regime.
    """

    logits: Any
    y: Any
    sample_weight: Any | None
    exits: tuple[int, ...]
    n_exits: int
    weighted: bool
    step: Any
    progress: Any
    state: RegimeState


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A regime is a frozen dataclass whose fields are its options; it holds no state of the training.

    Its loss is L = sum_e w_e CE_e unless it says otherwise.

    Args:
        exit_weights: how much each exit counts: ``uniform``, ``linear``, ``sdn``, ``inverse_running_loss``
            (see `exit_weights_at`), or one number per exit.
        gradient_equilibrium: whether block n of E gets its gradient times 1 / (E - n + 1), or over the exits
            from n on that a phase trains, so that blocks that many exits share do not move more than others
            (Li et al., arXiv 1908.06294; there by scaled identities between the blocks, whose product is this
            one factor). Optimizers that divide by the size of the gradient, such as Adam, undo most of it.
        label_smoothing: share of each target that is spread evenly over all classes.

    Raises:
        InputError: an option is out of its range.
    """

    name: ClassVar[str]
    min_exits: ClassVar[int] = 1
    uses_unlabelled: ClassVar[bool] = False
    perturbs: ClassVar[bool] = False
    needs_full_batches: ClassVar[bool] = False

    exit_weights: ExitWeights = UNIFORM
    gradient_equilibrium: bool = False
    label_smoothing: float = 0.0

    def __init_subclass__(cls, **options: Any) -> None:
        """Enter a regime that has a name under it."""
        super().__init_subclass__(**options)
        if "name" in vars(cls):
            REGIMES[cls.name] = cls

    def __post_init__(self) -> None:
        object.__setattr__(self, "exit_weights", checked_exit_weights(self.exit_weights))
        require_share("label_smoothing", self.label_smoothing, below_1=True)

    def phases(self, n_exits: int) -> tuple[Phase, ...]:
        """Return the phases for a network of so many exits."""
        return (joint_phase(n_exits),)

    def prepare(self, network: keras.Model) -> keras.Model:
        """Return the network to train and export; the same one again for a network prepared before."""
        return network

    def make_state(self, n_exits: int, seed: int = 0) -> RegimeState:
        """Return what the regime remembers from step to step, as it is at the beginning.

        Args:
            n_exits: number of exits.
            seed: of what begins at random.
        """
        return RegimeState(n_exits)

    def check_fit(self, model: Any, batch_size: int | None) -> None:
        """Refuse what `fit` was given where the regime cannot use it.

        Args:
            model: the `MultiExitModel`, compiled.
            batch_size: windows per step; None where batches may differ.

        Raises:
            InputError: says what the regime needs.
        """

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates in one training step."""
        return 1

    @property
    def follows_progress(self) -> bool:
        """Whether the loss depends on how much of the training is done."""
        return self.exit_weights == SDN

    def loss(self, outputs: ExitOutputs) -> Any:
        """Return the scalar loss of a training step."""
        return self.weighted_sum(cross_entropies(outputs.logits, outputs.y, self.label_smoothing), outputs)

    def weighted_sum(self, per_exit: Any, outputs: ExitOutputs) -> Any:
        """Return the mean over the batch of sum_e w_e l_e.

        Args:
            per_exit: losses (batch, exits of the phase).
            outputs: of this step.
        """
        weights = self.weights_of(keras.ops.mean(per_exit, axis=0), outputs)
        return weighted_mean(keras.ops.sum(per_exit * weights, axis=1), outputs.sample_weight)

    def weights_of(self, losses: Any, outputs: ExitOutputs) -> Any:
        """Return the weights of the phase's exits after noting their losses, (exits of the phase,).

        Args:
            losses: of the phase's exits, for the scheme that follows them.
            outputs: of this step.
        """
        if self.exit_weights == INVERSE_RUNNING_LOSS:
            for place, number in enumerate(outputs.exits):
                variable = outputs.state.running_losses[number - 1]
                change = keras.ops.stop_gradient(losses[place]) - variable
                variable.assign(variable + (1 - RUNNING_LOSS_MOMENTUM) * change)
        return self.present_weights(outputs)

    def present_weights(self, outputs: ExitOutputs) -> Any:
        """Return the weights of the phase's exits as they are."""
        ops = keras.ops
        if not outputs.weighted:
            return ops.ones((len(outputs.exits),))
        running = ops.stack([one.value for one in outputs.state.running_losses])
        weights = exit_weights_at(self.exit_weights, outputs.n_exits, outputs.progress, running)
        if len(outputs.exits) == outputs.n_exits:
            return weights
        return ops.stack([weights[number - 1] for number in outputs.exits])

    def step(self, model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[dict[str, Any], Any]:
        """Do one training step of a `MultiExitModel`.

        Args:
            model: whose weights learn.
            x: what the network takes; twice the batch where the regime perturbs.
            y: (batch,).
            sample_weight: (batch,), or None.

        Returns:
            Logits per exit for the metrics, and the loss.
        """
        return gradient_step(model, x, y, sample_weight)

    def step_macs(self, model: Any, x: Any, y: Any) -> Any:
        """Count the multiply-accumulates of a training step.

        Args:
            model: ready for its first step in the present phase.
            x: shapes of the samples.
            y: shape of the labels.

        Returns:
            `StepMacs`, or None where the graph cannot be counted.
        """
        return traced_macs(lambda samples, labels: self.step(model, samples, labels, None), x, y)

    def get_config(self) -> dict[str, Any]:
        """Return name and options, from which `make_regime` builds the regime again."""
        return {"name": self.name, **asdict(self)}


def require_share(argument: str, value: float, *, below_1: bool = False) -> None:
    """Refuse what is no share from 0 to 1.

    Raises:
        InputError: it is not; with ``below_1``, or it is 1.
    """
    if not (0 <= value < 1 or (value == 1 and not below_1)):
        raise InputError(
            f"`{argument}` must be at least 0 and {'below' if below_1 else 'at most'} 1. Received: {value}."
        )


def require_at_least_0(argument: str, value: float) -> None:
    """Refuse what is negative or not finite.

    Raises:
        InputError: it is.
    """
    if not 0 <= value < float("inf"):
        raise InputError(f"`{argument}` must be at least 0 and finite. Received: {value}.")


def require_positive(argument: str, value: float) -> None:
    """Refuse what is not positive and finite.

    Raises:
        InputError: it is not.
    """
    if not 0 < value < float("inf"):
        raise InputError(f"`{argument}` must be positive and finite. Received: {value}.")


def require_one_of(argument: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown name.

    Raises:
        InputError: lists the known ones.
    """
    if value not in known:
        raise unknown_name(argument, value, known)


def make_regime(regime: str | Regime, **options: Any) -> Regime:
    """Return a regime of a name, or the object itself.

    Args:
        regime: a key of `REGIMES`, or a regime.
        **options: fields of the regime, with a name only.

    Raises:
        InputError: no such regime, no such option, or a value of another kind.
    """
    if isinstance(regime, Regime):
        if options:
            raise InputError(
                f"options must be left out with a regime object. Received: {options} with {regime}."
            )
        return regime
    if regime not in REGIMES:
        raise unknown_name("regime", regime, REGIMES)
    known = {field.name: field.default for field in fields(REGIMES[regime])}
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of {regime}", option, known)
        _check_type(option, value, known[option])
    return REGIMES[regime](**options)


def _check_type(option: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default: options come from files and command lines too.

    Raises:
        InputError: says which kind is wanted.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_numbers = isinstance(value, list | tuple) and all(isinstance(one, int | float) for one in value)
    wanted, fits = {
        bool: ("true or false", isinstance(value, bool)),
        int: ("a whole number", is_number and float(value).is_integer()),
        float: ("a number", is_number),
        str: ("a name", isinstance(value, str)),
        type(None): ("a list of numbers, or None", value is None or is_numbers),
    }[type(default)]
    if option == "exit_weights":
        wanted, fits = "a name or a list of numbers", isinstance(value, str) or is_numbers
    if not fits:
        raise InputError(f"`{option}` must be {wanted}. Received: {value!r}.")

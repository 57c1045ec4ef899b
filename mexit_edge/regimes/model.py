"""`MultiExitModel`: a functional multi-exit network with a training regime, used as any Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mexit_edge.bundle import Training
from mexit_edge.errors import InputError
from mexit_edge.models.anatomy import anatomy
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes.active_phase import ActivePhase
from mexit_edge.regimes.batches import CheckedBatches, with_labels_checked
from mexit_edge.regimes.checkpoint import without_names
from mexit_edge.regimes.checks import check_arrays, check_class_weight, check_validation
from mexit_edge.regimes.cost import PhaseCost
from mexit_edge.regimes.exit_weights import check_number
from mexit_edge.regimes.fitting import fit_phases
from mexit_edge.regimes.losses import cross_entropies, labelled, weighted_mean
from mexit_edge.regimes.metrics import SeenMean
from mexit_edge.regimes.phases import Phase, joint_phase
from mexit_edge.regimes.provenance import NoteProvenance
from mexit_edge.regimes.regime import ExitOutputs, Regime, make_regime
from mexit_edge.regimes.sources import make_source
from mexit_edge.signals import Normalisation, Perturbation, Windows
from mexit_edge.signals.windows import refuse_unlabelled


@keras.saving.register_keras_serializable("mexit_edge")
class MultiExitModel(keras.Model):
    """Trains all exits of a network under one regime.

    Losses take logits and one array of class indices for all exits. `fit`, `evaluate` and History always
    carry loss and accuracy per exit: ``loss``, ``exit_01_loss``, ``exit_01_accuracy``, ...

    Args:
        network: a functional model with a dict of logits ``exit_01``, ``exit_02``, ... as outputs
            (`mexit_edge.models.build`, `attach_exits`, or one's own).
        regime: a name or an object.
        normalisation: applied to `Windows`; None to fit it on the windows of the first `fit`.
        perturbations: applied to training `Windows`; ``"auto"`` for the standard ones of inertial data where
            the sensor has rigid bodies, and none elsewhere.
        seed: of the order of windows and their perturbations.

    Raises:
        InputError: the network's outputs are not such a dict, there is no such regime, or ``perturbations``
            is neither ``"auto"`` nor a sequence of perturbations.

    Example:
        ```python
        model = MultiExitModel(network, regime="joint")
        model.compile(optimizer="adam")
        model.fit(split.train, validation_data=split.validation, epochs=40)
        ```
    """

    def __init__(
        self,
        network: keras.Model,
        regime: str | Regime = "joint",
        *,
        normalisation: Normalisation | None = None,
        perturbations: Sequence[Perturbation] | str = "auto",
        seed: int = 0,
        name: str = "multi_exit_model",
    ) -> None:
        super().__init__(name=name)
        if perturbations != "auto" and (
            isinstance(perturbations, str) or not all(callable(one) for one in perturbations)
        ):
            raise InputError(
                f'`perturbations` must be "auto" or a sequence of perturbations. Received: {perturbations!r}.'
            )
        self.regime = make_regime(regime)
        self.exits = exit_names(network)
        if len(self.exits) < self.regime.min_exits:
            raise InputError(
                f"`network` needs at least {self.regime.min_exits} exits for the regime "
                f"{self.regime.name!r}. Received: {len(self.exits)}. Attach one with `attach_exits`, or take "
                "`joint`."
            )
        # A regime of several phases would find out after hours of the first.
        check_number(self.regime.exit_weights, len(self.exits))
        self.network = self.regime.prepare(network)
        self.anatomy = anatomy(self.network)
        self.normalisation = normalisation
        # None after loading a model whose perturbations were objects.
        self.perturbations: Sequence[Perturbation] | str | None = perturbations
        self.seed = seed
        self.provenance = Training(regime=self.regime.name, seed=seed)
        self.training_cost: tuple[PhaseCost, ...] = ()
        self.exit_losses = [SeenMean(name=f"{exit_}_loss") for exit_ in self.exits]
        self.exit_accuracies = [SeenMean(name=f"{exit_}_accuracy") for exit_ in self.exits]
        self.regime_state = self.regime.make_state(len(self.exits), seed)
        # Of the present phase, as variables, so that the graph counts and checkpoints have them.
        self.step, self.n_steps, self.windows_seen = (
            self.add_weight(shape=(), initializer="zeros", dtype="int64", trainable=False, name=name)
            for name in ("step", "n_steps", "windows_seen")
        )
        self.first_non_finite = self.add_weight(
            shape=(len(self.exits) + 1,),
            initializer=keras.initializers.Constant(-1),
            dtype="int64",
            trainable=False,
            name="first_non_finite",
        )
        self.phase_epochs = (0, 0)
        self.active = self.whole = ActivePhase(self.network, self.anatomy, joint_phase(len(self.exits)))
        self.build(network.inputs[0].shape)

    @property
    def n_classes(self) -> int:
        """Number of logits per exit."""
        return int(self.network.output[self.exits[-1]].shape[-1])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What `fit` goes through, in order."""
        return self.regime.phases(len(self.exits))

    @property
    def trainable_variables(self) -> list[Any]:
        """The network's weights that can learn, in whichever phase.

        Optimizers are built on all of them, so that the file of a model does not depend on the phase it was
        saved in. A regime's own network is not among them: it has an optimizer of its own.
        """
        return self.network.trainable_variables

    @property
    def trainable_weights(self) -> list[Any]:
        """The weights that learn in the present phase; outside of `fit`, all that can."""
        return [variable for variable in self.network.trainable_weights if self.active.learns(variable)]

    def build(self, input_shape: Any) -> None:
        """Mark as built: the functional network has its weights already."""
        self.built = True

    def compile(self, optimizer: Any = "adam", **options: Any) -> None:
        """Set the optimizer; the loss is the regime's.

        Args:
            optimizer: a Keras optimizer or its name. A regime of several phases takes its configuration for
                a new one in every phase, whose schedule is rescaled to the phase's length.
            **options: of `keras.Model.compile`, without `loss`, `metrics` and `weighted_metrics`.

        Raises:
            InputError: a loss or metrics are given.
        """
        if options.pop("loss", None) is not None:
            raise InputError(
                "`loss` must not be given: the regime defines it. Choose another `regime` instead."
            )
        for argument in ("metrics", "weighted_metrics"):
            if options.pop(argument, None) is not None:
                raise InputError(
                    f"`{argument}` must not be given: loss and accuracy per exit are always there. Compute "
                    "others from `predict`."
                )
        # Compiling to XLA costs seconds per shape and gains nothing at these sizes.
        options.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **options)
        # As it was given: callbacks may change its learning rate later.
        self.optimizer_facts = without_names(keras.saving.serialize_keras_object(self.optimizer))

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as the model was when it was saved; the optimizer gets its state after that."""
        options = keras.saving.deserialize_keras_object(config)
        self.compile(**{name: value for name, value in options.items() if value is not None})
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return a dict of logits per exit; in training, of the present phase's exits."""
        return self.active(inputs) if training else self.network(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Do one step of the regime (see `keras.Model.train_step`)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred, loss = self.regime.step(self, x, y, sample_weight)
        n_windows = keras.ops.shape(y)[0]
        self._loss_tracker.update_state(loss, sample_weight=n_windows)
        self._note_non_finite()
        self.step.assign(self.step + 1)
        self.windows_seen.assign(self.windows_seen + keras.ops.cast(n_windows, "int64"))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the regime's loss plus the network's own (weight decay by regularisers).

        Outside of training it is the mean cross-entropy over the exits that the present phase trains, so that
        regimes can be compared.
        """
        exits = self.active.exits if training else self.exits
        logits = keras.ops.stack([y_pred[exit_] for exit_ in exits], axis=1)
        clean = logits[: keras.ops.shape(y)[0]] if training and self.regime.perturbs else logits
        columns = cross_entropies(clean, y)
        self._update_losses(columns, y, exits)
        if training:
            loss = self.regime.loss(self.exit_outputs(logits, y, sample_weight))
            network = self.active.network
        else:
            trained = [exits.index(exit_) for exit_ in self.active.exits]
            per_window = keras.ops.mean(keras.ops.stack([columns[:, one] for one in trained]), axis=0)
            loss = weighted_mean(per_window, sample_weight)
            network = self.network
        return loss + sum(network.losses) if network.losses else loss

    def exit_outputs(self, logits: Any, y: Any, sample_weight: Any) -> ExitOutputs:
        """Return what the regime's loss of a training step sees.

        Args:
            logits: (batch, exits of the phase, classes), or None where they are not needed.
            y: (batch,).
            sample_weight: (batch,), or None.
        """
        ops = keras.ops
        n_steps = ops.maximum(self.n_steps.value, 1)
        # Counts beyond 2^24 would not fit float32; their share does.
        progress = ops.cast(
            ops.cast(self.step, "float64") / ops.cast(n_steps, "float64"), keras.config.floatx()
        )
        return ExitOutputs(
            logits=logits,
            y=y,
            sample_weight=sample_weight,
            exits=self.active.phase.exits,
            n_exits=len(self.exits),
            weighted=self.active.phase.weighted,
            step=self.step.value,
            progress=ops.minimum(progress, 1),
            state=self.regime_state,
        )

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Return loss and accuracy per exit."""
        n_windows = keras.ops.shape(y)[0]
        weight = self._known(y)
        for metric, exit_ in zip(self.exit_accuracies, self.exits, strict=True):
            if exit_ in y_pred:
                predicted = keras.ops.argmax(y_pred[exit_][:n_windows], axis=-1)
                right = keras.ops.equal(predicted, keras.ops.cast(y, predicted.dtype))
                metric.update_state(keras.ops.cast(right, metric.dtype), weight)
        return self.get_metrics_result()

    def equilibrium(self, variables: Sequence[Any]) -> list[float]:
        """Return the factor of gradient equilibrium per variable (see `Regime`).

        Args:
            variables: of the network. A layer that several blocks share counts as part of the first.
        """
        exits = self.active.phase.exits
        factors = {
            id(weight): 1 / max(1, sum(exit_ >= number for exit_ in exits))
            for number, names in enumerate(self.anatomy.blocks, start=1)
            for name in names
            for weight in self.network.get_layer(name).weights
        }
        return [factors.get(id(variable), 1.0) for variable in variables]

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        batch_size: int = 64,
        epochs: int = 1,
        validation_data: Any = None,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        checkpoint: str | Path | None = None,
        **options: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, phase after phase.

        All randomness of order and perturbations derives from (seed, epoch, step), and dropout's is part of
        the model: with ``checkpoint`` an interrupted fit that is called again equals an uninterrupted one.
        That holds for `Windows` and arrays; a data set has to yield its batches in the same order again. Of
        the callbacks, those with a state of their own begin anew, except `MultiExitEarlyStopping`.

        A callback that sets ``stop_training`` ends the phase; the next one follows. What the fit has cost is
        in ``training_cost`` afterwards.

        Args:
            x: `Windows`; or an array (n, ...) as the network takes it, or a dict, list or tuple of arrays for
                several inputs, with ``y``; or a tf.data.Dataset or PyDataset of (x, y) or (x, y,
                sample_weight). Only `Windows` are normalised; ``perturbations="auto"`` touches them alone.
            y: (n,) class indices, with arrays only; -1 for a window without a label where the regime uses
                such.
            batch_size: windows per step; a data set has its own. `Windows` that do not fill the last batch of
                an epoch have their turn in another one.
            epochs: number of the last epoch, over all phases.
            validation_data: `Windows`, (x, y), (x, y, sample_weight) or a data set.
            class_weight: class index -> weight of its windows, 1 for those not named.
            sample_weight: (n,) weight per window, with `Windows` and arrays only.
            initial_epoch: number of epochs done before; for regimes of one phase.
            checkpoint: file that is written after every epoch and removed at the end; if it is there when fit
                begins, training goes on from it. Not with ``initial_epoch``, nor with a data set and
                ``steps_per_epoch``.
            **options: of `keras.Model.fit`: callbacks, verbose, ... `Windows` are shuffled always.

        Returns:
            Keras' History: one epoch axis over all phases, with a column ``phase`` (from 1). Exits that a
            phase does not run have NaN for training figures.

        Raises:
            InputError: labels out of range, a class absent from training, NaN or infinite samples, shapes
                that do not fit the network, weights that fit neither windows nor classes, fewer epochs than
                phases, a batch too small for the regime, a checkpoint of another training, or an argument
                that this kind of data does not take.
            RunError: a loss that is no finite number.
        """
        if getattr(self, "optimizer", None) is None:
            raise InputError("`compile` must be called before `fit`. Received: a model without optimizer.")
        check_class_weight(class_weight, self.n_classes)
        check_validation(validation_data, self.network, self.n_classes)
        source = make_source(
            self, x, y, batch_size, class_weight, sample_weight, options.pop("shuffle", None)
        )
        self.regime.check_fit(self, source.batch_size)
        return fit_phases(
            self,
            source,
            provenance=NoteProvenance(x, validation_data),
            callbacks=keras.tree.flatten(options.pop("callbacks", None) or []),
            epochs=epochs,
            initial_epoch=initial_epoch,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            validation_data=validation_data,
            options=options,
        )

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Return loss and metrics on `Windows`, arrays or a data set (see `keras.Model.evaluate`)."""
        if isinstance(x, Windows):
            refuse_unlabelled(x, "x")
            x, y = self.as_keras_data(x)
        elif y is not None:
            x, y = check_arrays(x, y, self.network, self.n_classes)
        else:
            x = self.as_keras_data(x)
        return super().evaluate(x, y, **options)

    def predict(self, x: Any, **options: Any) -> dict[str, NDArray[np.float32]]:
        """Return float logits per exit, (n, classes) each, for `Windows`, arrays or a data set."""
        return super().predict(self.as_keras_data(x)[0] if isinstance(x, Windows) else x, **options)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the model again."""
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "regime": self.regime.get_config(),
            "normalisation": self.normalisation
            and {"offset": list(self.normalisation.offset), "scale": list(self.normalisation.scale)},
            "seed": self.seed,
            # Objects are not part of a file; "own" asks for them again.
            "perturbations": self.perturbations
            if isinstance(self.perturbations, str)
            else ("own" if self.perturbations else "none"),
            "provenance": self.provenance.model_dump(mode="json"),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MultiExitModel:
        """Build the model of a config; perturbations given as objects are not part of it."""
        regime = dict(config["regime"])
        normalisation = config["normalisation"]
        model = cls(
            keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects),
            make_regime(regime.pop("name"), **regime),
            normalisation=normalisation
            and Normalisation(tuple(normalisation["offset"]), tuple(normalisation["scale"])),
            seed=config["seed"],
            perturbations=() if config["perturbations"] == "none" else "auto",
            name=config["name"],
        )
        if config["perturbations"] == "own":
            model.perturbations = None
        model.provenance = Training.model_validate(config["provenance"])
        return model

    def as_keras_data(self, data: Any) -> Any:
        """Return Windows as normalised (x, y), data sets with their labels checked; all else as it is."""
        if isinstance(data, tf.data.Dataset):
            return with_labels_checked(data, self.n_classes)
        if isinstance(data, keras.utils.PyDataset):
            return CheckedBatches(data, self.n_classes)
        if not isinstance(data, Windows):
            return data
        normalisation = self.normalisation or Normalisation.identity(data.sensor.n_channels)
        return normalisation.apply(data.x), data.y

    def _known(self, y: Any) -> Any | None:
        """Return 1 for labelled windows and 0 for others; None where all are labelled."""
        return labelled(y, "float32") if self.regime.uses_unlabelled else None

    def _update_losses(self, columns: Any, y: Any, exits: Sequence[str]) -> None:
        weight = self._known(y)
        for place, exit_ in enumerate(exits):
            number = self.exits.index(exit_)
            self.exit_losses[number].update_state(columns[:, place], weight)

    def _note_non_finite(self) -> None:
        """Keep the first step after which a mean loss, per exit and the regime's, is not finite."""
        totals = tf.stack([metric.total.value for metric in (*self.exit_losses, self._loss_tracker)])
        before = tf.convert_to_tensor(self.first_non_finite.value)
        first = tf.logical_and(before < 0, tf.logical_not(tf.math.is_finite(totals)))
        self.first_non_finite.assign(tf.where(first, tf.convert_to_tensor(self.step.value), before))

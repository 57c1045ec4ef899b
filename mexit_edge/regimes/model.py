"""`MultiExitModel`: a functional multi-exit network with a training regime, used as any Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Training
from mexit_edge.errors import InputError
from mexit_edge.models.heads import exit_names
from mexit_edge.regimes.batches import WindowBatches
from mexit_edge.regimes.checks import (
    check_arrays,
    check_class_weight,
    refuse_absent_class,
    refuse_given,
    window_weights,
)
from mexit_edge.regimes.provenance import NoteProvenance
from mexit_edge.regimes.regime import Regime, make_regime
from mexit_edge.signals import Normalisation, Perturbation, Sensor, Windows, inertial_perturbations


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
        self.exits = exit_names(network)
        self.network = network
        self.regime = make_regime(regime)
        self.normalisation = normalisation
        self.perturbations = perturbations
        self.seed = seed
        self.provenance = Training(regime=self.regime.name, seed=seed)
        self.exit_losses = [keras.metrics.Mean(name=f"{exit_}_loss") for exit_ in self.exits]
        self.exit_accuracies = [
            keras.metrics.SparseCategoricalAccuracy(name=f"{exit_}_accuracy") for exit_ in self.exits
        ]
        self.build(network.inputs[0].shape)

    @property
    def _window_shape(self) -> tuple[int, ...]:
        return tuple(self.network.inputs[0].shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of logits per exit."""
        return int(self.network.output[self.exits[-1]].shape[-1])

    def build(self, input_shape: Any) -> None:
        """Mark as built: the functional network has its weights already."""
        self.built = True

    def compile(self, optimizer: Any = "adam", **options: Any) -> None:
        """Set the optimizer; the loss is the regime's.

        Args:
            optimizer: a Keras optimizer or its name.
            **options: of `keras.Model.compile`, without `loss`.

        Raises:
            InputError: a loss is given.
        """
        if options.pop("loss", None) is not None:
            raise InputError(
                "`loss` must not be given: the regime defines it. Choose another `regime` instead."
            )
        # Compiling to XLA costs seconds per shape and gains nothing at these sizes.
        options.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **options)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return a dict of logits per exit."""
        return self.network(inputs, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the regime's loss plus the network's own (weight decay by regularisers)."""
        columns = [
            keras.losses.sparse_categorical_crossentropy(y, y_pred[exit_], from_logits=True)
            for exit_ in self.exits
        ]
        for metric, column in zip(self.exit_losses, columns, strict=True):
            metric.update_state(column)
        loss = self.regime.loss(keras.ops.stack(columns, axis=1), sample_weight)
        return loss + sum(self.network.losses) if self.network.losses else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Return loss and accuracy per exit beside whatever `compile` was given."""
        for metric, exit_ in zip(self.exit_accuracies, self.exits, strict=True):
            metric.update_state(y, y_pred[exit_])
        return self.get_metrics_result()

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
        **options: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does.

        Args:
            x: `Windows`; or an array (n, ...) as the network takes it, with ``y``; or a tf.data.Dataset or
                PyDataset of (x, y). Only `Windows` are normalised and perturbed.
            y: (n,) class indices, with an array only.
            batch_size: windows per step; a data set has its own.
            epochs: number of the last epoch.
            validation_data: `Windows`, (x, y) or a data set.
            class_weight: class index -> weight of its windows, 1 for those not named.
            sample_weight: (n,) weight per window, with `Windows` and arrays only.
            initial_epoch: number of epochs done before.
            **options: of `keras.Model.fit`: callbacks, verbose, ... `Windows` are shuffled always.

        Returns:
            Keras' History.

        Raises:
            InputError: labels out of range, a class absent from training, NaN or infinite samples, shapes
                that do not fit the network, weights that fit neither windows nor classes, or an argument that
                this kind of data does not take.
        """
        check_class_weight(class_weight, self.n_classes)
        self._check_validation(validation_data)
        if isinstance(x, Windows):
            reason = "`Windows` have labels, and are shuffled anew in every epoch"
            refuse_given(reason, y=y, shuffle=options.pop("shuffle", None))
            data: dict[str, Any] = {
                "x": self._training_batches(x, batch_size, class_weight, sample_weight, initial_epoch),
                "shuffle": False,
            }
        elif hasattr(x, "__array__") or isinstance(x, list | tuple):
            x, y = check_arrays(x, y, self._window_shape, self.n_classes)
            refuse_absent_class(y, self.n_classes)
            weights = window_weights(y, self.n_classes, class_weight, sample_weight)
            data = {"x": x, "y": y, "batch_size": batch_size, "sample_weight": weights}
        else:
            reason = "a data set yields (x, y) or (x, y, sample_weight)"
            refuse_given(reason, y=y, sample_weight=sample_weight)
            # Keras wants a weight of every class.
            by_class = dict.fromkeys(range(self.n_classes), 1.0) | class_weight if class_weight else None
            data = {"x": x, "class_weight": by_class}
            if not isinstance(x, keras.utils.PyDataset):
                # A tf.data.Dataset is shuffled by its owner; Keras would warn of its own default.
                options.setdefault("shuffle", False)
        # First, so that a checkpoint of the same epoch knows what it has seen.
        callbacks = [
            NoteProvenance(x, validation_data),
            *keras.tree.flatten(options.pop("callbacks", None) or []),
        ]
        return super().fit(
            **data,
            callbacks=callbacks,
            epochs=epochs,
            initial_epoch=initial_epoch,
            validation_data=self._as_arrays(validation_data),
            **options,
        )

    def evaluate(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Return loss and metrics on `Windows`, arrays or a data set (see `keras.Model.evaluate`)."""
        if isinstance(x, Windows):
            x, y = self._as_arrays(x)
        return super().evaluate(x, y, **options)

    def predict(self, x: Any, **options: Any) -> dict[str, NDArray[np.float32]]:
        """Return float logits per exit, (n, classes) each, for `Windows`, arrays or a data set."""
        return super().predict(self._as_arrays(x)[0] if isinstance(x, Windows) else x, **options)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the model again."""
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "regime": self.regime.get_config(),
            "normalisation": self.normalisation
            and {"offset": list(self.normalisation.offset), "scale": list(self.normalisation.scale)},
            "seed": self.seed,
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
            name=config["name"],
        )
        model.provenance = Training.model_validate(config["provenance"])
        return model

    def _training_batches(
        self,
        windows: Windows,
        batch_size: int,
        class_weight: dict[int, float] | None,
        sample_weight: Any,
        initial_epoch: int,
    ) -> WindowBatches:
        check_arrays(windows.x, windows.y, self._window_shape, self.n_classes)
        refuse_absent_class(windows.y, self.n_classes, windows.classes)
        weights = window_weights(windows.y, self.n_classes, class_weight, sample_weight)
        if self.normalisation is None:
            self.normalisation = Normalisation.fit(windows)
        return WindowBatches(
            windows,
            self.normalisation,
            self._perturbations(windows.sensor),
            batch_size,
            self.seed,
            first_epoch=initial_epoch,
            sample_weight=weights,
        )

    def _perturbations(self, sensor: Sensor) -> Sequence[Perturbation]:
        if not isinstance(self.perturbations, str):
            return self.perturbations
        normalisation = self.normalisation or Normalisation.identity(sensor.n_channels)
        return inertial_perturbations(normalisation.scale) if sensor.rigid_bodies else ()

    def _as_arrays(self, data: Any) -> Any:
        """Return Windows as normalised (x, y); anything else as it is."""
        if not isinstance(data, Windows):
            return data
        normalisation = self.normalisation or Normalisation.identity(data.sensor.n_channels)
        return normalisation.apply(data.x), data.y

    def _check_validation(self, data: Any) -> None:
        """Check what is known before training; a data set shows its samples only while it is read."""
        part = " of `validation_data`"
        if isinstance(data, Windows):
            check_arrays(data.x, data.y, self._window_shape, self.n_classes, part)
        elif isinstance(data, list | tuple):
            if len(data) not in (2, 3):
                raise InputError(
                    "`validation_data` must be `Windows`, a data set, (x, y) or (x, y, sample_weight). "
                    f"Received: {len(data)} values."
                )
            _, y = check_arrays(data[0], data[1], self._window_shape, self.n_classes, part)
            window_weights(y, self.n_classes, None, [*data, None][2], "sample_weight of validation_data")

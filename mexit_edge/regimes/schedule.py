"""Learning-rate schedules that fit a phase."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("mexit_edge")
class RescaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that runs faster or slower.

    Args:
        schedule: made for the whole training.
        factor: steps of that schedule per step.
    """

    def __init__(self, schedule: Any, factor: float) -> None:
        super().__init__()
        self.schedule = (
            keras.optimizers.schedules.deserialize(schedule) if isinstance(schedule, dict) else schedule
        )
        self.factor = factor

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step."""
        ops = keras.ops
        step = ops.convert_to_tensor(step)
        rescaled = ops.cast(step, "float64") * self.factor
        return self.schedule(ops.cast(ops.floor(rescaled), step.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return schedule and factor."""
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "factor": self.factor,
        }


def optimizer_of_phase(optimizer: Any, factor: float) -> Any:
    """Return an optimizer of the same configuration without a past, its schedule rescaled.

    Args:
        optimizer: as given to `compile`.
        factor: steps of the whole training's schedule per step of the phase.
    """
    config = optimizer.get_config()
    schedule = schedule_of(optimizer)
    if schedule is not None:
        # The object itself: one that is not registered with Keras could not be built from its config.
        config["learning_rate"] = schedule if factor == 1 else RescaledSchedule(schedule, factor)
    return type(optimizer).from_config(config)


def schedule_of(optimizer: Any) -> Any | None:
    """Return an optimizer's learning-rate schedule, None where its rate is a number."""
    # Keras has no public name for it (test_phases_take_a_schedule_of_ones_own guards this).
    schedule = getattr(optimizer, "_learning_rate", None)
    return schedule if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) else None

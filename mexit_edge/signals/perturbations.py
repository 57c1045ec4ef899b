"""Label-preserving perturbations of inertial windows.

Each perturbation is a small object that is called with a batch and a generator; strengths are those of the
data augmentation study for wearables by Um et al., ICMI 2017 (arXiv 1706.00527), as far as that states any.
All act on windows in the sensor's own units, before normalisation, so that a rotation turns all axes of a
device alike. A strength of 1 is that for training; severities 0 to 5 are those of robustness curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mexit_edge.errors import InputError
from mexit_edge.signals.sensor import Channels, Sensor
from mexit_edge.signals.units import quantity_of

Batch = NDArray[np.float32]

# Beyond it the slowest speed would be none at all.
MAX_STRENGTH = 4.0

Axis = Literal["x", "y", "z"]

# Whether a mirror image has the quantity reversed along the mirror's normal, as a length is, or along the
# other two axes, as whatever turns is: polar and axial vectors.
_IS_POLAR = {"acceleration": True, "angular rate": False}

# What severities 0 to 5 multiply the standard strength by.
SEVERITY_STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


class Perturbation(Protocol):
    """Changes a batch (n, time, channels) without changing the meaning of its labels."""

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Return the perturbed batch; ``x`` itself stays as it is."""
        ...


@dataclass(frozen=True)
class Rotation:
    """Turn each rigid body by one random rotation, shared by its accelerometer and gyroscope.

    The axis is uniform on the sphere, the angle uniform within +-`max_angle_rad` (Rodrigues' formula).
    """

    max_angle_rad: float = 0.35

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Rotate every triad of three axes that belongs to a rigid body."""
        turned = x.copy()
        for body in sensor.rigid_bodies:
            rotation = _rotations(len(x), self.max_angle_rad, rng)
            for triad in body:
                axes = list(sensor.triads[triad])
                turned[..., axes] = x[..., axes] @ rotation.transpose(0, 2, 1)
        return turned


@dataclass(frozen=True)
class Mirror:
    """Show a share of the windows as a mirror image: worn on the left becomes worn on the right.

    Reverses one axis of accelerations and the other two of angular rates: they are polar and axial vectors
    (Goldstein, Poole and Safko, Classical Mechanics, section 4.8). No rotation does that. Channels of no
    rigid body stay. It asks that the device is worn in one way on either side, and that no class has a side
    of its own, as "turn left" has.

    A watch that is worn the usual way has one axis along the forearm, towards the hand on one side and
    away from it on the other, and two that are the same on both: the first is its ``axis``.

    Args:
        axis: of the device, which the other side of the body reverses.
        share: of the windows, drawn at random.

    Raises:
        InputError: there is no such axis, or ``share`` is not from 0 to 1; called, the sensor has no rigid
            bodies, or one that measures neither acceleration nor angular rate.
    """

    axis: Axis
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.axis not in get_args(Axis):
            raise InputError(f"`axis` must be x, y or z. Received: {self.axis!r}.")
        if not 0 <= self.share <= 1:
            raise InputError(f"`share` must be from 0 to 1. Received: {self.share}.")

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Mirror some of the windows."""
        mirrored = rng.random((len(x), 1, 1)) < self.share
        return np.where(mirrored, x * self.signs(sensor), x)

    def signs(self, sensor: Sensor) -> NDArray[np.float32]:
        """Return what each channel of a mirror image is multiplied by: 1 or -1."""
        if not sensor.rigid_bodies:
            raise InputError("`sensor` must have rigid bodies to be mirrored. Received: one without.")
        signs = np.ones(sensor.n_channels, np.float32)
        along = np.isin(get_args(Axis), self.axis)
        for channels in (sensor.triads[triad] for body in sensor.rigid_bodies for triad in body):
            signs[list(channels)] = np.where(along == _is_polar(sensor, channels), -1, 1)
        return signs


@dataclass(frozen=True)
class ChannelScale:
    """Multiply each channel of each window by a factor drawn from N(1, `sigma`)."""

    sigma: float = 0.1

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Scale every channel."""
        factors = 1.0 + self.sigma * rng.standard_normal((len(x), 1, x.shape[2]), dtype=np.float32)
        return x * factors


@dataclass(frozen=True)
class Speed:
    """Play each window at a constant speed, uniform between `slowest` and `fastest`, about its centre.

    Samples are interpolated linearly; where a faster window would need samples beyond its ends, it repeats
    the first or last one.
    """

    slowest: float = 0.8
    fastest: float = 1.25

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Resample every window in time."""
        n, time, _ = x.shape
        centre = (time - 1) / 2
        speed = rng.uniform(self.slowest, self.fastest, (n, 1))
        position = np.clip((np.arange(time) - centre) * speed + centre, 0, time - 1)
        before = np.minimum(position.astype(np.intp), time - 2)
        share = (position - before)[..., None].astype(np.float32)
        row = np.arange(n)[:, None]
        return x[row, before] * (1 - share) + x[row, before + 1] * share


@dataclass(frozen=True)
class Jitter:
    """Add white noise of `sigma` times the standard deviation of the channel's triad."""

    sigma: float
    scale: tuple[float, ...]

    def __call__(self, x: Batch, sensor: Sensor, rng: np.random.Generator) -> Batch:
        """Add noise to every sample."""
        deviation = np.float32(self.sigma) * np.asarray(self.scale, np.float32)
        return x + rng.standard_normal(x.shape, dtype=np.float32) * deviation


def inertial_perturbations(scale: Sequence[float], strength: float = 1.0) -> tuple[Perturbation, ...]:
    """Return the standard perturbations for accelerometers and gyroscopes, in the order of application.

    Args:
        scale: standard deviation per channel's triad (`Normalisation.scale`).
        strength: multiplies every strength, from 0, which leaves windows as they are, to `MAX_STRENGTH`.

    Raises:
        InputError: it is none of these.
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise InputError(f"`strength` must be from 0 to {MAX_STRENGTH:g}. Received: {strength}.")
    return (
        Rotation(0.35 * strength),
        ChannelScale(0.1 * strength),
        Speed(1 - 0.2 * strength, 1 + 0.25 * strength),
        Jitter(0.05 * strength, tuple(scale)),
    )


def severity_strength(severity: float) -> float:
    """Return what a severity from 0 to 5 multiplies the standard strength by: 0, .5, 1, 1.5, 2, 3."""
    return float(np.interp(severity, range(len(SEVERITY_STRENGTHS)), SEVERITY_STRENGTHS))


def apply_perturbations(
    x: Batch, sensor: Sensor, perturbations: Sequence[Perturbation], rng: np.random.Generator
) -> Batch:
    """Apply perturbations one after the other to a batch (n, time, channels) in the sensor's units."""
    for perturb in perturbations:
        x = perturb(x, sensor, rng)
    return x


def _is_polar(sensor: Sensor, channels: Channels) -> bool:
    """Return whether a triad measures polar vectors, and not axial ones."""
    units = [sensor.units[channel] for channel in channels]
    found = {_IS_POLAR.get(quantity_of(unit) or "") for unit in units}
    if len(found) > 1 or None in found:
        raise InputError(
            f"`units` must be of {' or '.join(_IS_POLAR)} to be mirrored. Received: {', '.join(units)}: what "
            "a mirror does to them is not known here."
        )
    return bool(found.pop())


def _rotations(n: int, max_angle_rad: float, rng: np.random.Generator) -> Batch:
    """Return n rotation matrices (n, 3, 3) about random axes."""
    axis = rng.standard_normal((n, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = rng.uniform(-max_angle_rad, max_angle_rad, (n, 1, 1))
    zero = np.zeros(n)
    x, y, z = axis.T
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(n, 3, 3)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return turn.astype(np.float32)

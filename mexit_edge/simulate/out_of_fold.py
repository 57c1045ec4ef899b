"""Set a bundle's policy on out-of-fold logits, where no subjects are left over to calibrate on.

K networks are trained, each without the subjects of one fold, and each gives the logits of the windows of its
own fold. So every training window is judged by a network that never saw its subject (Stone, 1974,
"Cross-Validatory Choice and Assessment of Statistical Predictions"). The thresholds are searched on these
logits and go into the bundle of a network that was refitted on all subjects. What the search bounds is the
loss of the fold networks: for the refitted one, which is none of them, it guarantees nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Bundle, Manifest, TensorSpec
from mexit_edge.errors import InputError
from mexit_edge.estimate import Device
from mexit_edge.signals import Windows
from mexit_edge.simulate.calibrate import chosen_goal, with_policy
from mexit_edge.simulate.evaluate import check_fit
from mexit_edge.simulate.exit_costs import ExitCosts, exit_costs
from mexit_edge.simulate.goals import Goal, Scoring
from mexit_edge.simulate.scored import Judged
from mexit_edge.simulate.subjects import seen_subjects


def calibrate_out_of_fold(
    bundle: Bundle,
    logits: NDArray[Any],
    windows: Windows,
    *,
    folds: int,
    goal: Goal | None = None,
    max_drop: float | None = None,
    score: str | Scoring = "logit_margin",
    cost: str | ExitCosts | None = None,
    device: str | Device | None = None,
) -> Bundle:
    """Search thresholds on out-of-fold logits of the training windows; return the bundle with that policy.

    The float logits are rounded to the bundle's own int8 steps, exit by exit, because integers decide; what
    lies beyond an exit's range saturates, as it does on a device. No stage is executed.

    Args:
        bundle: of the network that was refitted on all training subjects.
        logits: (n, E, classes) float logits, window i by the fold network that did not see its subject.
        windows: (n) training windows in the same order; of their samples nothing is read.
        folds: number of fold networks, K.
        goal: as for `calibrate`; what it bounds is the loss of the fold networks. A `Risk` is refused.
        max_drop: as for `calibrate`.
        score: as for `calibrate`.
        cost: as for `calibrate`.
        device: as for `calibrate`.

    Raises:
        InputError: the logits do not fit the windows or are not finite, a window's subject is not among the
            bundle's training subjects, there cannot be as many folds, or as `calibrate`.
    """
    check_fit(bundle, windows)
    _refuse_strangers(bundle.manifest, windows)
    _check_folds(folds, len(bundle.manifest.training.train_subjects))
    _check_logits(logits, (len(windows), len(bundle.manifest.stages), len(bundle.manifest.classes)))
    steps = in_steps(bundle.manifest, logits)
    return with_policy(
        bundle,
        Judged(steps, windows, folds=int(folds)),
        chosen_goal(goal, max_drop),
        score,
        cost if isinstance(cost, ExitCosts) else exit_costs(bundle, cost, device),
    )


def in_steps(manifest: Manifest, logits: NDArray[Any]) -> NDArray[np.int8]:
    """Return float logits (n, E, classes) in the int8 steps of a bundle, exit by exit."""
    return np.stack(
        [quantize(logits[:, exit_], stage.outputs[0]) for exit_, stage in enumerate(manifest.stages)], axis=1
    )


def quantize(values: NDArray[Any], tensor: TensorSpec) -> NDArray[np.int8]:
    """Return floats as the int8 of a tensor: nearest step, half to even, saturated.

    Args:
        values: finite, in the tensor's real unit, of any shape.
        tensor: with scale and zero point.
    """
    # A value near the largest float becomes infinite here, and saturates as it should.
    with np.errstate(over="ignore"):
        steps = np.rint(values.astype(np.float64) / tensor.scale) + tensor.zero_point
    return np.clip(steps, -128, 127).astype(np.int8)


def _refuse_strangers(manifest: Manifest, windows: Windows) -> None:
    """Refuse subjects that the refitted network was not trained on: for them there is `calibrate`."""
    trained = seen_subjects(manifest, windows.name).get("training", ())
    strangers = sorted(set(windows.subjects) - set(trained))
    if strangers:
        raise InputError(
            "`windows` must come from the bundle's training subjects: out-of-fold logits exist for those "
            "alone, because every fold network was trained on the others among them. Received: "
            f"{', '.join(map(str, strangers))} of {windows.name}, of which it was trained on "
            f"{', '.join(map(str, trained)) or 'nobody'}. Leave these windows out; for subjects new to the "
            "bundle there is `calibrate`."
        )


def _check_folds(folds: int, n_subjects: int) -> None:
    if not isinstance(folds, int | np.integer) or not 2 <= folds <= n_subjects:
        raise InputError(
            "`folds` must be the number of fold networks, from 2 to one per training subject "
            f"({n_subjects}). Received: {folds!r}."
        )


def _check_logits(logits: NDArray[Any], shape: tuple[int, int, int]) -> None:
    if not isinstance(logits, np.ndarray) or logits.shape != shape or logits.dtype.kind != "f":
        got = (
            f"{logits.dtype} of shape {logits.shape}"
            if isinstance(logits, np.ndarray)
            else type(logits).__name__
        )
        raise InputError(
            f"`logits` must be a float array of shape {shape}: windows, exits, classes. Received: {got}. "
            "Pass what the heads of the float networks give, before any softmax and not yet quantized."
        )
    if not np.isfinite(logits).all():
        place = tuple(int(index) for index in np.argwhere(~np.isfinite(logits))[0])
        raise InputError(
            f"`logits` must be finite. Received: {logits[place]} at index {place}. Every window must be "
            "judged by the fold network of its subject, and a network that diverged must be trained again."
        )

"""Information flow: what every block's output tells of the class, and what of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.features import MAX_FEATURES, block_features
from mexit_edge.analysis.inputs import require_whole, sampled, shown
from mexit_edge.analysis.ksg import NEIGHBOURS
from mexit_edge.analysis.probes import LINEAR, MLP, ProbeBound, entropy, probe_bound
from mexit_edge.analysis.window_information import Channel, Pairs, Repeated, principal
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

N_WINDOWS = 2000
N_PAIRS = 1000
PROBE_COMPONENTS = 64
# With two components on either side and this noise, 1,000 pairs show a Gaussian channel to some 5 %; with
# four components of noise 0.1 they show half of it.
COMPONENTS = 2
MOST_COMPONENTS = 16
NOISE = 0.3


@dataclass(frozen=True, eq=False)
class InformationFlow:
    """Estimates, in nats, of every block's output Z_e.

    Args:
        exits: name per exit.
        label_entropy: H(Y) of the judged windows: I(Z; Y) cannot be more.
        linear: per exit, I(Z_e; Y) >= H(Y) - CE of a linear probe.
        mlp: per exit, the same of a probe with a hidden layer.
        of_window: per exit, I(X; Z_e + noise) on principal components.
        channel: per exit, the same of a Gaussian channel of that size, beside the truth: the error to reckon
            with, which may differ from exit to exit.
        shuffled: per exit, the same with windows and outputs paired at random, where the truth is 0.
        noise: standard deviation of the Gaussian noise, where Z_e has 1 per component on average.
        components: principal components of X and of each Z_e, at most.
        judged_subjects: whom the probes were judged on.
        n_fitted: windows that the probes were fitted on.
        n_judged: windows that they were judged on.
        n_pairs: windows behind the estimates of I(X; Z_e + noise).
    """

    exits: tuple[str, ...]
    label_entropy: float
    linear: tuple[ProbeBound, ...]
    mlp: tuple[ProbeBound, ...]
    of_window: tuple[Repeated, ...]
    channel: tuple[Channel, ...]
    shuffled: tuple[Repeated, ...]
    noise: float
    components: int
    judged_subjects: tuple[int, ...]
    n_fitted: int
    n_judged: int
    n_pairs: int

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: exit, estimate, nats, low, high, sd_over_draws, error_nats, probe_accuracy."""
        rows = []
        for place, exit_ in enumerate(self.exits):
            for bound in (self.linear[place], self.mlp[place]):
                row = _row(exit_, f"I(Z;Y) at least, {bound.probe} probe", bound.value)
                if bound.interval is not None:
                    row |= {"low": bound.interval.low, "high": bound.interval.high}
                rows.append(row | {"probe_accuracy": bound.accuracy})
            channel = self.channel[place]
            rows.append(_row(exit_, "Gaussian channel, known", channel.known))
            for name, found, error in (
                ("I(X;Z+noise)", self.of_window[place], channel.error),
                ("Gaussian channel, estimated", channel.found, channel.error),
                ("I(X;Z+noise), shuffled", self.shuffled[place], self.shuffled[place].mean),
            ):
                row = _row(exit_, name, found.mean)
                rows.append(row | {"sd_over_draws": found.deviation, "error_nats": error})
        return rows


def _row(exit_: str, estimate: str, nats: float) -> dict[str, Any]:
    empty = dict.fromkeys(("low", "high", "sd_over_draws", "error_nats", "probe_accuracy"))
    return {"exit": exit_, "estimate": estimate, "nats": nats, **empty}


def information_flow(
    model: keras.Model,
    windows: Windows,
    held_out: Windows,
    *,
    noise: float = NOISE,
    components: int = COMPONENTS,
    n_windows: int = N_WINDOWS,
    n_pairs: int = N_PAIRS,
    seed: int = 0,
) -> InformationFlow:
    """Estimate what every exit's head is told of the class, and what of the window.

    Of the class: a lower bound from probes on at most 64 principal components of the standardised output,
    both fitted on ``windows``, judged on the windows of ``held_out``. The probes may be poor; then so is the
    bound.

    Of the window: a deterministic network of continuous values tells everything, I(X; Z_e) is infinite. With
    Gaussian noise on Z_e it is not. X and Z_e are reduced to their first principal components, each divided
    by one number so that its components have variance 1 on average; Z_e gets the noise; nearest neighbours
    give the estimate (see `ksg`). Components that are left out tell more, and the estimator falls short, the
    more so the more components there are: beside it stands what it makes of a Gaussian channel of the same
    number of points and components and the same variances, whose information is known. A difference between
    exits that is not well above the difference of these errors says nothing. What is paired at random shows
    how far the estimate is from 0 without any information.

    Args:
        model: a `MultiExitModel` or a functional network with exits.
        windows: of training subjects, labelled, of two classes at least.
        held_out: of other subjects, labelled; never of test subjects.
        noise: standard deviation of the noise, see above.
        components: at most 16; the error grows with it.
        n_windows: at most so many of either set for the probes, drawn at random.
        n_pairs: at most so many of ``windows`` for the estimate, drawn anew in each of 5 repetitions.
        seed: of all draws.

    Raises:
        InputError: a subject stands in both sets, probes cannot be fitted (see `fittable`), the windows do
            not fit, or a number is out of its range.

    Reference:
        Probes as a bound: Barber and Agakov, "The IM Algorithm", NIPS 2003. Noise: Goldfeld et al.,
        arXiv 1810.05728.
    """
    _check_numbers(noise, components, n_pairs)
    _refuse_shared(windows, held_out)
    fitted = shown(model, fittable(windows, n_windows, seed))
    judged = shown(model, sampled(held_out, n_windows, seed), "held_out")
    features, _ = block_features(fitted, MAX_FEATURES, seed)
    judged_features, _ = block_features(judged, MAX_FEATURES, seed)
    estimator = Pairs(principal(fitted.x.reshape(len(fitted.x), -1), components, seed), noise, n_pairs, seed)
    bounds: dict[str, list[ProbeBound]] = {LINEAR: [], MLP: []}
    outputs = []
    for exit_ in fitted.exits:
        z, judged_z = _for_probes(features[exit_], judged_features[exit_], seed)
        for probe, found in bounds.items():
            found.append(
                probe_bound(probe, z, fitted.y, fitted.subject, judged_z, judged.y, judged.subject, seed)
            )
        outputs.append(principal(features[exit_], components, seed))
    return InformationFlow(
        exits=fitted.exits,
        label_entropy=entropy(judged.y),
        linear=tuple(bounds[LINEAR]),
        mlp=tuple(bounds[MLP]),
        of_window=tuple(estimator.repeated(z) for z in outputs),
        channel=tuple(estimator.channel(z) for z in outputs),
        shuffled=tuple(estimator.repeated(z, shuffle=True) for z in outputs),
        noise=noise,
        components=components,
        judged_subjects=tuple(int(one) for one in np.unique(judged.subject)),
        n_fitted=len(fitted.y),
        n_judged=len(judged.y),
        n_pairs=min(n_pairs, len(fitted.y)),
    )


def _check_numbers(noise: float, components: int, n_pairs: int) -> None:
    if not 0 < noise < float("inf"):
        raise InputError(
            "`noise` must be positive and finite: without it the information is infinite. "
            f"Received: {noise}. Use {NOISE}."
        )
    require_whole("components", components, 1)
    require_whole("n_pairs", n_pairs, NEIGHBOURS + 1)
    if components > MOST_COMPONENTS:
        raise InputError(
            f"`components` must be at most {MOST_COMPONENTS}: neighbours in more dimensions are all alike. "
            f"Received: {components}. Use {COMPONENTS}."
        )


def fittable(windows: Windows, n_windows: int = N_WINDOWS, seed: int = 0) -> Windows:
    """Return the windows that probes are fitted on, drawn as `information_flow` does.

    Raises:
        InputError: they are of one class, or too few for the estimate by nearest neighbours.
    """
    fitted = sampled(windows, n_windows, seed)
    if len(fitted) <= NEIGHBOURS:
        raise InputError(
            f"`windows` must hold more than {NEIGHBOURS} windows: neighbours. Received: {len(fitted)}. "
            "Add windows."
        )
    if len(np.unique(fitted.y)) < 2:
        raise InputError(
            "`windows` must hold two classes at least. Received: one. Add windows of other classes."
        )
    return fitted


def _refuse_shared(windows: Windows, held_out: Windows) -> None:
    shared = sorted(set(windows.subjects) & set(held_out.subjects))
    if shared:
        raise InputError(
            "`held_out` must hold windows of other subjects than `windows`. "
            f"Received: subjects {', '.join(map(str, shared))} in both. Divide by subject, "
            "with `windows.of_subjects`."
        )


def _for_probes(z: NDArray[Any], judged: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return principal components of the standardised features, found on the first set alone."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(z)
    z, judged = scaler.transform(z), scaler.transform(judged)
    if z.shape[1] > PROBE_COMPONENTS:
        # The covariance of thousands of features takes minutes.
        solver = "covariance_eigh" if z.shape[1] <= 500 else "randomized"
        reduction = PCA(min(PROBE_COMPONENTS, *z.shape), svd_solver=solver, random_state=seed)
        # See `principal`.
        with np.errstate(invalid="ignore"):
            reduction.fit(z)
        z, judged = reduction.transform(z), reduction.transform(judged)
        # One number for all: directions that hardly vary stay small.
        scale = z[:, 0].std() or 1.0
        z, judged = z / scale, judged / scale
    return z, judged

"""Information flow: what every block's output tells of the class, and what of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mexit_edge.analysis.features import MAX_FEATURES, block_features
from mexit_edge.analysis.inputs import require_whole, sampled, shown
from mexit_edge.analysis.ksg import NEIGHBOURS, ksg
from mexit_edge.analysis.probes import LINEAR, MLP, ProbeBound, entropy, probe_bound
from mexit_edge.errors import InputError
from mexit_edge.signals import Windows

N_WINDOWS = 2000
N_PAIRS = 1000
PROBE_COMPONENTS = 64
COMPONENTS = 16
NOISE = 0.1
REPEATS = 5


@dataclass(frozen=True)
class Repeated:
    """An estimate over several draws of windows and noise.

    Args:
        mean: in nats.
        deviation: standard deviation of one draw, in nats. It does not hold the estimator's own shortfall.
    """

    mean: float
    deviation: float


@dataclass(frozen=True, eq=False)
class InformationFlow:
    """Estimates, in nats, of every block's output Z_e.

    Args:
        exits: name per exit.
        label_entropy: H(Y) of the judged windows: I(Z; Y) cannot be more.
        linear: per exit, I(Z_e; Y) >= H(Y) - CE of a linear probe.
        mlp: per exit, the same of a probe with a hidden layer.
        of_window: per exit, I(X; Z_e + noise) on principal components.
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
    shuffled: tuple[Repeated, ...]
    noise: float
    components: int
    judged_subjects: tuple[int, ...]
    n_fitted: int
    n_judged: int
    n_pairs: int

    def rows(self) -> list[dict[str, Any]]:
        """Return tidy rows: exit, estimate, nats, low, high, sd_over_draws, probe_accuracy."""
        rows = []
        for place, exit_ in enumerate(self.exits):
            for bound in (self.linear[place], self.mlp[place]):
                interval = bound.interval
                rows.append(
                    {
                        "exit": exit_,
                        "estimate": f"I(Z;Y) at least, {bound.probe} probe",
                        "nats": bound.value,
                        "low": None if interval is None else interval.low,
                        "high": None if interval is None else interval.high,
                        "sd_over_draws": None,
                        "probe_accuracy": bound.accuracy,
                    }
                )
            for name, found in (
                ("I(X;Z+noise)", self.of_window[place]),
                ("I(X;Z+noise), shuffled", self.shuffled[place]),
            ):
                rows.append(
                    {
                        "exit": exit_,
                        "estimate": name,
                        "nats": found.mean,
                        "low": None,
                        "high": None,
                        "sd_over_draws": found.deviation,
                        "probe_accuracy": None,
                    }
                )
        return rows


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
    give the estimate (see `ksg`). It falls short where the information is large: exits can be compared by it,
    but it is not the truth. What is paired at random shows how far it is from 0 without any.

    Args:
        model: a `MultiExitModel` or a functional network with exits.
        windows: of training subjects, labelled, of two classes at least.
        held_out: of other subjects, labelled; never of test subjects.
        noise: standard deviation of the noise, see above.
        components: at most 16.
        n_windows: at most so many of either set for the probes, drawn at random.
        n_pairs: at most so many of ``windows`` for the estimate, drawn anew in each of 5 repetitions.
        seed: of all draws.

    Raises:
        InputError: a subject stands in both sets, there is one class only, the windows do not fit, or a
            number is out of its range.

    Reference:
        Probes as a bound: Barber and Agakov, "The IM Algorithm", NIPS 2003. Noise: Goldfeld et al.,
        arXiv 1810.05728.
    """
    if not 0 < noise < float("inf"):
        raise InputError(
            f"`noise` must be positive and finite: without it the information is infinite. Received: {noise}."
        )
    require_whole("components", components, 1)
    require_whole("n_pairs", n_pairs, NEIGHBOURS + 1)
    if components > COMPONENTS:
        raise InputError(
            f"`components` must be at most {COMPONENTS}: neighbours in more dimensions are all alike. "
            f"Received: {components}."
        )
    _refuse_shared(windows, held_out)
    fitted = shown(model, sampled(windows, n_windows, seed))
    judged = shown(model, sampled(held_out, n_windows, seed), "held_out")
    if len(np.unique(fitted.y)) < 2:
        raise InputError("`windows` must hold two classes at least. Received: one.")
    if len(fitted.y) <= NEIGHBOURS:
        raise InputError(
            f"`windows` must hold more than {NEIGHBOURS} windows: neighbours. Received: {len(fitted.y)}."
        )
    features, _ = block_features(fitted, MAX_FEATURES, seed)
    judged_features, _ = block_features(judged, MAX_FEATURES, seed)
    x = _principal(fitted.x.reshape(len(fitted.x), -1), components, seed)
    bounds: dict[str, list[ProbeBound]] = {LINEAR: [], MLP: []}
    of_window, shuffled = [], []
    for exit_ in fitted.exits:
        z, judged_z = _for_probes(features[exit_], judged_features[exit_])
        for probe, found in bounds.items():
            found.append(
                probe_bound(probe, z, fitted.y, fitted.subject, judged_z, judged.y, judged.subject, seed)
            )
        pairs = x, _principal(features[exit_], components, seed)
        of_window.append(_of_window(*pairs, noise, n_pairs, seed, shuffle=False))
        shuffled.append(_of_window(*pairs, noise, n_pairs, seed, shuffle=True))
    return InformationFlow(
        exits=fitted.exits,
        label_entropy=entropy(judged.y),
        linear=tuple(bounds[LINEAR]),
        mlp=tuple(bounds[MLP]),
        of_window=tuple(of_window),
        shuffled=tuple(shuffled),
        noise=noise,
        components=components,
        judged_subjects=tuple(int(one) for one in np.unique(judged.subject)),
        n_fitted=len(fitted.y),
        n_judged=len(judged.y),
        n_pairs=min(n_pairs, len(fitted.y)),
    )


def _refuse_shared(windows: Windows, held_out: Windows) -> None:
    shared = sorted(set(windows.subjects) & set(held_out.subjects))
    if shared:
        raise InputError(
            "`held_out` must hold windows of other subjects than `windows`. "
            f"Received: subjects {', '.join(map(str, shared))} in both. Divide by subject, "
            "with `windows.of_subjects`."
        )


def _for_probes(z: NDArray[Any], judged: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return principal components of the standardised features, found on the first set alone."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(z)
    z, judged = scaler.transform(z), scaler.transform(judged)
    if z.shape[1] > PROBE_COMPONENTS:
        reduction = PCA(min(PROBE_COMPONENTS, len(z)), svd_solver="covariance_eigh").fit(z)
        z, judged = reduction.transform(z), reduction.transform(judged)
        # One number for all: directions that hardly vary stay small.
        scale = z[:, 0].std() or 1.0
        z, judged = z / scale, judged / scale
    return z, judged


def _principal(values: NDArray[Any], components: int, seed: int) -> NDArray[np.float64]:
    """Return the first principal components (n, k), scaled together so that their mean variance is 1."""
    from sklearn.decomposition import PCA

    reduction = PCA(min(components, *values.shape), random_state=seed)
    found = reduction.fit_transform(values.astype(np.float64))
    power = float(np.mean(found**2))
    return np.asarray(found / (power**0.5 or 1.0))


def _of_window(
    x: NDArray[np.float64], z: NDArray[np.float64], noise: float, n_pairs: int, seed: int, *, shuffle: bool
) -> Repeated:
    found = []
    for repeat in range(REPEATS):
        rng = np.random.default_rng([seed, repeat])
        chosen = rng.permutation(len(x))[:n_pairs]
        partner = rng.permutation(chosen) if shuffle else chosen
        found.append(ksg(x[chosen], z[partner] + noise * rng.standard_normal((len(chosen), z.shape[1]))))
    return Repeated(float(np.mean(found)), float(np.std(found, ddof=1)))

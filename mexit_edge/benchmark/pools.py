"""The joblib back ends that a sweep can run on: this machine, a Dask cluster, a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mexit_edge.errors import InputError, MissingExtraError, unknown_name

TIMEOUT_S = 10.0
# What Ray itself takes for the cluster that was started on this machine.
RAY_AUTO = "auto"
POLL_S = 0.2
# With one job joblib would use no Ray at all.
LEAST_RAY_CPUS = 2


class WorkersLostError(Exception):
    """Workers or their scheduler are gone; what was finished is finished."""


@dataclass(frozen=True)
class Pool:
    """Where runs are done.

    Args:
        backend: ``"local"``, ``"dask"`` or ``"ray"``.
        workers: runs at once, or as many as a Ray cluster has CPUs; of a cluster that was given by its
            address, None for all that it has.
        address: of a running Dask scheduler or Ray head; None for a cluster of our own on this machine.

    Raises:
        InputError: no such back end, or an address with ``"local"``.
        MissingExtraError: the back end is not installed.
    """

    backend: str = "local"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise unknown_name("backend", self.backend, BACKENDS)
        if self.backend == "local" and self.address is not None:
            raise InputError(
                f"`address` must be left out with the back end local. Received: {self.address}. "
                "Add `--backend dask` or `--backend ray`."
            )
        module = {"local": "joblib", "dask": "distributed", "ray": "ray"}[self.backend]
        if find_spec(module) is None:
            raise MissingExtraError(module, {"local": "bench"}.get(self.backend, self.backend))
        if self.address is not None and not (self.backend == "ray" and self.address == RAY_AUTO):
            _refuse_silent(self.address, self.backend)

    def run(
        self, function: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int | None
    ) -> None:
        """Do all calls, so many at once.

        Args:
            function: that a worker can import.
            calls: arguments of each.
            workers: at most so many at once; None for all that there are.

        Raises:
            WorkersLostError: a worker died, or the scheduler no longer answers.
            InputError: what the function raises, or a Ray cluster is too small for joblib.
            RunError: what the function raises.
        """
        import joblib

        tasks = [joblib.delayed(function)(*call) for call in calls]
        with BACKENDS[self.backend](self, workers) as (backend, n_jobs, wait_for):

            def work() -> None:
                # With one job joblib would do it in this process; what is dispatched bounds what is at work.
                with joblib.parallel_config(backend=backend):
                    joblib.Parallel(n_jobs=max(2, n_jobs), pre_dispatch=n_jobs, batch_size=1)(tasks)

            try:
                wait_for(work)
            except _lost(self.backend) as error:
                raise WorkersLostError(f"{type(error).__name__}: {error}") from error

    @property
    def n_local(self) -> int:
        """Workers of a cluster of our own: as many as asked for, or one per core."""
        return self.workers or os.cpu_count() or 1


Work = Callable[[], Any]
# Back end of joblib, runs at once, and what to wait with for joblib to come back.
Opened = tuple[Any, int, Callable[[Work], Any]]


@contextmanager
def _local(pool: Pool, workers: int | None) -> Iterator[Opened]:
    yield "loky", workers or pool.n_local, _call


@contextmanager
def _dask(pool: Pool, workers: int | None) -> Iterator[Opened]:
    from distributed import Client, LocalCluster

    # Its notices of lost connections come from threads of its own, in the middle of the progress.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        cluster: Any = pool.address
        if cluster is None:
            cluster = LocalCluster(
                n_workers=workers or pool.n_local,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
            )
            stack.callback(cluster.close, timeout=5)
        try:
            client = Client(cluster, timeout=TIMEOUT_S)
        except OSError as error:
            raise WorkersLostError(f"the Dask scheduler does not answer: {error}") from error
        stack.callback(client.close, timeout=1)
        n_jobs = workers or pool.workers or sum(client.nthreads().values()) or 1
        yield _dask_backend(client), n_jobs, partial(_watched, client)


def _dask_backend(client: Any) -> Any:
    """Return joblib's Dask back end, which itself would do the work here where Dask has a single worker."""
    from joblib._dask import DaskDistributedBackend

    class NeverHere(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

    return NeverHere(client=client)


@contextmanager
def _ray(pool: Pool, workers: int | None) -> Iterator[Opened]:
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    from ray.exceptions import AuthenticationError

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if pool.address is None:
        options |= {"num_cpus": max(LEAST_RAY_CPUS, workers or pool.n_local), "include_dashboard": False}
    try:
        ray.init(address=pool.address or "local", **options)
    except AuthenticationError as error:
        raise InputError(
            f"`address` must be of a Ray cluster whose token is known here. Received: {pool.address}: {error}"
        ) from error
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        # Ray shows its token to an address only where it is told to, and says no more than that it failed.
        hint = "" if pool.address is None else " If it wants a token, set RAY_AUTH_MODE=token."
        raise WorkersLostError(f"the Ray head does not answer: {error}.{hint}") from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < LEAST_RAY_CPUS:
            raise InputError(
                f"`address` must be of a Ray cluster with at least {LEAST_RAY_CPUS} CPUs, one per process of "
                f"joblib, whatever `--workers` says. Received: {pool.address}, with {cpus}. Add a node, or "
                f"start the head with `ray start --head --num-cpus {LEAST_RAY_CPUS}`."
            )
        # Ray starts no more processes than it has CPUs.
        yield "ray", min(workers or pool.workers or cpus, cpus), _call
    finally:
        ray.shutdown()


def _call(work: Work) -> None:
    work()


def _watched(client: Any, work: Work) -> None:
    """Wait for joblib on Dask, which itself would wait for ever where the scheduler or a task is lost."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            work()
        # Whatever it is, it is raised again by who waits.
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    last_seen = time.monotonic()
    while thread.is_alive():
        thread.join(POLL_S)
        if client.status == "running":
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > TIMEOUT_S:
            raise WorkersLostError("the Dask scheduler no longer answers")
        # What a run raises comes as its result; only a task that Dask gave up has this state.
        given_up = [one for one in tuple(client.futures.values()) if one.status == "error"]
        if thread.is_alive() and given_up:
            raise WorkersLostError(f"Dask gave up a run: {given_up[0].exception}")
    if caught:
        raise caught[0]


BACKENDS: dict[str, Callable[[Pool, int | None], Any]] = {"local": _local, "dask": _dask, "ray": _ray}


def _lost(backend: str) -> tuple[type[BaseException], ...]:
    """Return what a back end raises when workers or scheduler are gone."""
    if backend == "local":
        from concurrent.futures.process import BrokenProcessPool

        return (BrokenProcessPool,)
    if backend == "dask":
        from asyncio import CancelledError as AsyncCancelledError
        from concurrent.futures import CancelledError

        from distributed.comm import CommClosedError

        return (CommClosedError, CancelledError, AsyncCancelledError, TimeoutError)
    from ray.exceptions import RayError, RayTaskError

    # What a task raises comes as `RayTaskError`, and is its own.
    return tuple(kind for kind in RayError.__subclasses__() if kind is not RayTaskError)


def _refuse_silent(address: str, backend: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would look for minutes."""
    try:
        parts = urlsplit(address if "//" in address else f"tcp://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise InputError(
            f"`address` must be HOST:PORT of a running {backend} cluster. Received: {address!r}."
        )
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as error:
        raise _silent(address, backend, error.strerror or str(error)) from error


def _silent(address: str, backend: str, reason: str) -> InputError:
    begin = {"dask": "dask scheduler", "ray": "ray start --head"}[backend]
    return InputError(
        f"`address` must be that of a running {backend} cluster. Received: {address}, which does not answer "
        f"({reason}). Start one with `{begin}`, or leave the address out for one on this machine."
    )

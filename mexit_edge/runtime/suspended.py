"""A window between two stages: what a device stores before it loses its supply, and reads to go on.

Layout, all little-endian: the four bytes ``MXS1``; eight bytes that tell the bundle and its policy
(`fingerprint`), so that no other reads it; number of stages run (uint8); way in (uint8, 0 fixed point,
1 float); the score of each stage run (int32, `NO_SCORE` where the exit is switched off); number of integers
that the score remembers (uint16), and these (int32); every int8 tensor that a later stage reads, in the order
in which later stages first name them; CRC-32 (IEEE 802.3) of all that comes before.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from mexit_edge.bundle import Manifest, TensorSpec
from mexit_edge.errors import InputError

MAGIC = b"MXS1"
NO_SCORE = -(1 << 31)
WAYS_IN = ("fixed_point", "float")
_HEAD = struct.Struct("<4s8sBB")


@dataclass(frozen=True, eq=False)
class Suspended:
    """A window that has run some stages and not left.

    Args:
        tensors: name -> int8 tensor with a batch of 1, for all that later stages read.
        state: what the score remembers of the exits before.
        scores: of the stages run, in order; None where the exit is switched off.
        way_in: as in `Decision`.
    """

    tensors: Mapping[str, NDArray[np.int8]]
    state: tuple[int, ...]
    scores: tuple[int | None, ...]
    way_in: str


def pack(suspended: Suspended, manifest: Manifest) -> bytes:
    """Return the stored form; see the module."""
    stages_run = len(suspended.scores)
    scores = [NO_SCORE if score is None else score for score in suspended.scores]
    n_state = len(suspended.state)
    parts = [
        _HEAD.pack(MAGIC, fingerprint(manifest), stages_run, WAYS_IN.index(suspended.way_in)),
        struct.pack(f"<{stages_run}iH{n_state}i", *scores, n_state, *suspended.state),
        *(suspended.tensors[tensor.name].tobytes() for tensor in boundary(manifest, stages_run)),
    ]
    content = b"".join(parts)
    return content + struct.pack("<I", zlib.crc32(content))


def unpack(content: bytes, manifest: Manifest) -> Suspended:
    """Read the stored form.

    Raises:
        InputError: the bytes were changed, cut off, or written for another bundle.
    """
    if len(content) < _HEAD.size + 6 or zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        raise _damaged("another checksum, or fewer bytes than its head has")
    magic, bundle, stages_run, way_in = _HEAD.unpack_from(content)
    if magic != MAGIC or way_in >= len(WAYS_IN) or not 1 <= stages_run < len(manifest.stages):
        raise _damaged(f"{magic!r} after {stages_run} stages, way in {way_in}")
    if bundle != fingerprint(manifest):
        raise InputError(
            "a suspended window must be resumed by the bundle that suspended it. Received: one of other "
            "stages or another policy. Start the window anew."
        )
    tensors = boundary(manifest, stages_run)
    n_bytes = sum(prod(tensor.shape) for tensor in tensors)
    place = _HEAD.size + 4 * stages_run
    rule = manifest.exit_rule()
    n_state = rule.n_state
    expected = place + 2 + 4 * n_state + n_bytes + 4
    if expected != len(content) or struct.unpack_from("<H", content, place)[0] != n_state:
        raise _damaged(f"{len(content)} bytes after {stages_run} stages, where {expected} are due")
    scores = struct.unpack_from(f"<{stages_run}i", content, _HEAD.size)
    state = struct.unpack_from(f"<{n_state}i", content, place + 2)
    if not rule.scores[stages_run].accepts(state):
        raise _damaged(f"a state that no window can have after {stages_run} stages")
    place += 2 + 4 * n_state
    live = {}
    for tensor in tensors:
        size = prod(tensor.shape)
        live[tensor.name] = np.frombuffer(content, np.int8, size, place).reshape(tensor.shape).copy()
        place += size
    return Suspended(
        tensors=live,
        state=state,
        scores=tuple(None if score == NO_SCORE else score for score in scores),
        way_in=WAYS_IN[way_in],
    )


def boundary(manifest: Manifest, stages_run: int) -> tuple[TensorSpec, ...]:
    """Return the tensors that stages after the first ``stages_run`` read and that exist by then."""
    made = {manifest.input_name} | {
        tensor.name for stage in manifest.stages[:stages_run] for tensor in stage.outputs
    }
    read = {tensor.name: tensor for stage in manifest.stages[stages_run:] for tensor in stage.inputs}
    return tuple(tensor for name, tensor in read.items() if name in made)


def fingerprint(manifest: Manifest) -> bytes:
    """Return eight bytes that tell stages and what decides on them from others: a constant of a bundle.

    They begin the SHA-256 of a text: the stages' hashes in hexadecimal, joined, and the policy as compact
    JSON without its `calibration`, `temporal` and `controller`, which no window remembers anything of.
    """
    policy = manifest.policy
    text = "".join(stage.sha256 for stage in manifest.stages)
    if policy is not None:
        text += policy.model_dump_json(exclude={"calibration", "temporal", "controller"})
    return hashlib.sha256(text.encode()).digest()[:8]


def _damaged(received: str) -> InputError:
    return InputError(
        f"a suspended window must be whole, as `Runtime.store` wrote it. Received: {received}. "
        "Start the window anew."
    )

"""A policy as a file of its own: to try another one on a bundle without writing a new bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from mexit_edge.bundle.bundle import MAX_MANIFEST_BYTES, Bundle
from mexit_edge.bundle.policy import Policy
from mexit_edge.bundle.schema import MAX_STAGES
from mexit_edge.bundle.spec import Sha256, Spec
from mexit_edge.errors import InputError, first_violation
from mexit_edge.files import write_bytes


class PolicyFile(Spec):
    """A policy, and the stages that it was made for."""

    schema_version: Literal[1] = 1
    stages_sha256: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=MAX_STAGES)]
    policy: Policy


def save_policy(bundle: Bundle, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a bundle's policy as JSON.

    Args:
        bundle: with a policy.
        path: file to write.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the bundle has no policy, or the file exists.
    """
    policy = bundle.manifest.policy
    if policy is None:
        raise InputError("`bundle` must have a policy. Received: one without. Set one with `calibrate`.")
    file = PolicyFile(stages_sha256=_hashes(bundle), policy=policy)
    target = Path(path)
    write_bytes(target, (file.model_dump_json(indent=1) + "\n").encode(), overwrite=overwrite)
    return target


def load_policy(bundle: Bundle, path: str | Path) -> Bundle:
    """Return the bundle with the policy of a file that was made for its stages.

    Raises:
        InputError: the file is missing, too large, no policy, or made for other stages.
    """
    source = Path(path)
    if not source.is_file() or source.stat().st_size > MAX_MANIFEST_BYTES:
        raise InputError(
            f"`policy` must be a file that `mexit calibrate --policy-out` wrote, of at most "
            f"{MAX_MANIFEST_BYTES} bytes. Received: {source}."
        )
    try:
        file = PolicyFile.model_validate_json(source.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"`policy` must follow the schema of policies. Received: {source}, "
            f"{first_violation(error, 'the file', PolicyFile)}."
        ) from error
    if file.stages_sha256 != _hashes(bundle):
        raise InputError(
            "`policy` must be made for this bundle's stages: thresholds are steps of their logits. Received: "
            f"{source}, for stages {', '.join(one[:12] for one in file.stages_sha256)}, where the bundle has "
            f"{', '.join(one[:12] for one in _hashes(bundle))}. Calibrate this bundle."
        )
    return bundle.with_manifest(policy=file.policy, golden=None)


def _hashes(bundle: Bundle) -> tuple[str, ...]:
    return tuple(stage.sha256 for stage in bundle.manifest.stages)

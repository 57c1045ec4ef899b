"""`mexit inspect` of what `mexit cut` wrote: the stages, and whether their files are still the same."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from mexit_edge.bundle.bundle import MANIFEST as BUNDLE_MANIFEST
from mexit_edge.bundle.bundle import MAX_MANIFEST_BYTES
from mexit_edge.cli.cut import MANIFEST, PHONE, CutManifest, print_stages
from mexit_edge.cli.tables import print_json
from mexit_edge.errors import InputError, first_violation
from mexit_edge.files import read_from_folder, sha256
from mexit_edge.tflite.verify import MAX_MODEL_BYTES


def cut_manifest_of(path: Path) -> Path | None:
    """Return the cut.json that a path is, or that its folder holds; None for anything else."""
    if path.name == MANIFEST:
        return path
    holds = (path / MANIFEST).is_file() and not (path / BUNDLE_MANIFEST).exists()
    return path / MANIFEST if holds else None


def inspect_cut_and_print(path: Path, *, as_json: bool) -> None:
    """Check the files that a cut.json names, and print its stages.

    Raises:
        InputError: it is no cut.json, or a file beside it is not there or was changed.
    """
    manifest = _manifest(path)
    files = {stage.file: stage.sha256 for stage in manifest.stages}
    if manifest.phone_sha256 is not None:
        files[PHONE] = manifest.phone_sha256
    for name, expected in files.items():
        if sha256(read_from_folder(path.parent, name, MAX_MODEL_BYTES)) != expected:
            raise InputError(
                f"`{name}` must have the sha256 that {MANIFEST} states, {expected[:12]}... "
                "Received: another. The file was changed or damaged; cut the model again."
            )
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        print_stages(manifest)


def _manifest(path: Path) -> CutManifest:
    try:
        return CutManifest.model_validate_json(read_from_folder(path.parent, path.name, MAX_MANIFEST_BYTES))
    except ValidationError as error:
        raise InputError(
            f"`path` must be a {MANIFEST} as `mexit cut` writes it. "
            f"Received: {path}: {first_violation(error, MANIFEST)}. Cut the model again."
        ) from error

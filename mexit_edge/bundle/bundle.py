"""Save, load and verify bundles: a folder ``NAME.mexit/``, or the same as one ``NAME.zip``."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mexit_edge.bundle.card import model_card
from mexit_edge.bundle.golden import Golden
from mexit_edge.bundle.schema import GoldenSpec, Manifest
from mexit_edge.errors import InputError, first_violation
from mexit_edge.files import (
    read_from_folder,
    refuse_existing,
    refuse_nameless,
    refuse_unwritable,
    sha256,
    written_whole,
)

MANIFEST = "manifest.json"
# In the form of sha256sum, which makes it anew after a deliberate change of the manifest.
CHECKSUM = "manifest.json.sha256"
GOLDEN = "golden.npz"
CARD = "model_card.md"
PHONE = "phone.tflite"
MAX_MANIFEST_BYTES = 1 << 20
MAX_CHECKSUM_BYTES = 1 << 10
MAX_FILE_BYTES = 64 << 20
# What zipfile raises on a damaged, encrypted or hostile archive; OSError where an offset leaves the file.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Stage models with their manifest.

    Args:
        manifest: what the bundle says about itself.
        stages: the .tflite of each stage, in order.
        golden: golden vectors, or None before they are made.
        phone: all stages as signatures of one .tflite, or None.
        foreign: whether it came from a file: its models are tried before they are opened (`runtime.trial`).
    """

    manifest: Manifest
    stages: tuple[bytes, ...]
    golden: Golden | None = None
    phone: bytes | None = None
    foreign: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.manifest.stages):
            raise InputError(
                f"`stages` needs one model per stage ({len(self.manifest.stages)}). "
                f"Received: {len(self.stages)}."
            )
        for spec, content in zip(self.manifest.stages, self.stages, strict=True):
            _unchanged(content, spec.sha256, spec.file)
        if self.golden is not None:
            self.golden.check_fit(self.manifest)
        if self.phone is not None:
            if self.manifest.phone_sha256 is None:
                raise InputError("`phone` needs its sha256 in `manifest`. Received: none. Use `with_phone`.")
            _unchanged(self.phone, self.manifest.phone_sha256, PHONE)
            if PHONE in (spec.file for spec in self.manifest.stages):
                raise InputError(
                    f"`phone` must not take the name of a stage. Received: a stage {PHONE}. Rename it."
                )

    def with_manifest(self, **changes: Any) -> Bundle:
        """Return the bundle with these fields of its manifest replaced, and the whole checked again.

        Another policy drops the quality and the golden vectors, which were made under the old one, and other
        stages drop the file for phones, unless they are passed too.
        """
        fields = {name: getattr(self.manifest, name) for name in type(self.manifest).model_fields}
        if changes.get("policy", self.manifest.policy) != self.manifest.policy:
            fields |= {"quality": None, "golden": None}
        if changes.get("stages", self.manifest.stages) != self.manifest.stages:
            fields |= {"phone_sha256": None}
        manifest = Manifest(**(fields | changes))
        return replace(
            self,
            manifest=manifest,
            golden=self.golden if manifest.golden else None,
            phone=self.phone if manifest.phone_sha256 else None,
        )

    def with_golden(self, golden: Golden) -> Bundle:
        """Return the bundle with golden vectors."""
        spec = GoldenSpec(file=GOLDEN, sha256=sha256(golden.to_bytes()), n_windows=len(golden.windows))
        return replace(self, manifest=self.manifest.model_copy(update={"golden": spec}), golden=golden)

    def with_phone(self, phone: bytes) -> Bundle:
        """Return the bundle with all stages as signatures of one file for phones, ``phone.tflite``.

        Args:
            phone: as `mexit_edge.tflite.phone_bundle` makes it of this bundle.

        Raises:
            InputError: a stage has that name.
        """
        manifest = self.manifest.model_copy(update={"phone_sha256": sha256(phone)})
        return replace(self, manifest=manifest, phone=phone)

    @staticmethod
    def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
        """Return where `save` would write, after checking that it may: worth asking before a long training.

        Args:
            path: as for `save`.
            overwrite: as for `save`.

        Raises:
            InputError: as for `save`; or the folder it would stand in cannot be written to.
        """
        target = Path(path)
        refuse_nameless(target)
        if target.suffix not in (".mexit", ".zip"):
            target = target.with_name(target.name + ".mexit")
        refuse_existing(target, overwrite=overwrite)
        if target.exists() and not _may_be_replaced(target):
            raise InputError(
                f"`path` with `overwrite=True` must be an existing bundle. Received: {target}, without a "
                f"{MANIFEST}. Choose another name."
            )
        refuse_unwritable(target)
        return target

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the bundle whole: an interrupt or a full disk leaves an existing one as it was.

        Args:
            path: a name ending in ``.zip`` gives one file; any other a folder NAME.mexit.
            overwrite: whether an existing bundle of that name may be replaced.

        Returns:
            The path written.

        Raises:
            InputError: ``path`` exists and ``overwrite`` is False, or is something other than a bundle.
        """
        target = self.check_target(path, overwrite=overwrite)
        files = self._files()
        with written_whole(target, overwrite=overwrite) as fresh:
            if target.suffix == ".zip":
                with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name, content in files.items():
                        # A fixed date; an entry of its own does not take over the archive's compression.
                        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                        archive.writestr(entry, content, compress_type=zipfile.ZIP_DEFLATED)
            else:
                fresh.mkdir()
                for name, content in files.items():
                    (fresh / name).write_bytes(content)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read a bundle and check everything: schema, names, sizes and hashes.

        The hashes find damage and accidents. Whoever changes a file on purpose can change its hash too.

        Args:
            path: a folder or a .zip.

        Raises:
            InputError: it is not a whole, unchanged bundle of a known schema.
        """
        source = Path(path)
        if source.is_dir():
            return cls._assemble(source, lambda name, limit: read_from_folder(source, name, limit))
        if not source.is_file():
            raise InputError(f"`path` must be a bundle, a folder NAME.mexit or a .zip. Received: {source}.")
        with source.open("rb") as stream:
            try:
                with zipfile.ZipFile(stream) as archive:
                    return cls._assemble(source, lambda name, limit: _read_from_zip(archive, name, limit))
            except InputError:
                raise
            except DAMAGED_ZIP as error:
                raise InputError(
                    f"`path` must be a bundle, a folder NAME.mexit or a .zip. Received: {source}: {error}."
                ) from error

    @classmethod
    def _assemble(cls, source: Path, read: Callable[[str, int], bytes]) -> Bundle:
        text = read(MANIFEST, MAX_MANIFEST_BYTES)
        checksum = read(CHECKSUM, MAX_CHECKSUM_BYTES)[:64].decode("ascii", "replace")
        manifest = _parse(_unchanged(text, checksum, MANIFEST, stated_in=CHECKSUM), source)
        stages = tuple(read(stage.file, MAX_FILE_BYTES) for stage in manifest.stages)
        golden = None
        if manifest.golden is not None:
            spec = manifest.golden
            golden = Golden.from_bytes(_unchanged(read(spec.file, MAX_FILE_BYTES), spec.sha256, spec.file))
        phone = None if manifest.phone_sha256 is None else read(PHONE, MAX_FILE_BYTES)
        return cls(manifest, stages, golden, phone, foreign=True)

    def _files(self) -> dict[str, bytes]:
        """Return every file of the bundle: name -> content."""
        # The golden vectors are packed anew, and another zlib may pack them into other bytes.
        whole = self.with_manifest(golden=None) if self.golden is None else self.with_golden(self.golden)
        manifest = whole.manifest
        if self.phone is None:
            manifest = manifest.model_copy(update={"phone_sha256": None})
        text = (manifest.model_dump_json(indent=1) + "\n").encode()
        files = {
            MANIFEST: text,
            CHECKSUM: f"{sha256(text)}  {MANIFEST}\n".encode(),
            CARD: model_card(manifest).encode(),
        }
        files |= {spec.file: content for spec, content in zip(manifest.stages, self.stages, strict=True)}
        if self.golden is not None:
            files[GOLDEN] = self.golden.to_bytes()
        if self.phone is not None:
            files[PHONE] = self.phone
        return files


def _may_be_replaced(target: Path) -> bool:
    """Tell whether what stands there is a bundle, or an empty folder."""
    if target.is_dir():
        return (target / MANIFEST).is_file() or not any(target.iterdir())
    if target.suffix != ".zip":
        return False
    try:
        with zipfile.ZipFile(target) as archive:
            return MANIFEST in archive.namelist()
    except DAMAGED_ZIP:
        return False


def _parse(text: bytes, source: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        given = str(error.errors(include_url=False)[0]["input"])[:80]
        raise InputError(
            f"`{MANIFEST}` of {source} must follow the bundle schema. "
            f"Received: {first_violation(error, MANIFEST)} (got {given!r})."
        ) from error


def _unchanged(content: bytes, expected: str, name: str, stated_in: str = "the manifest") -> bytes:
    if sha256(content) != expected:
        raise InputError(
            f"`{name}` must have the sha256 that {stated_in} states, {expected[:12]}... "
            f"Received: {sha256(content)[:12]}... The file was changed or damaged; export or copy it again."
        )
    return content


def _read_from_zip(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise InputError(f"the bundle must hold the file {name}. Received: none.") from None
    if entry.file_size > limit:
        raise InputError(f"`{name}` must be at most {limit} bytes. Received: {entry.file_size}.")
    with archive.open(entry) as stream:
        # The stated size is not to be trusted: read one byte past the limit at most.
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"`{name}` must be at most {limit} bytes. Received: more.")
    return content

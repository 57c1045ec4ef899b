"""Artefacts are written whole or not at all, and the errors have their one shape."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mexit_edge.bundle import Bundle
from mexit_edge.errors import InputError, MissingExtraError, RunError, unknown_name
from mexit_edge.files import (
    free_name,
    refuse_existing,
    refuse_unwritable,
    sha256,
    stands,
    write_bytes,
    written_whole,
)


def make_folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=30)
def test_sha256_is_that_of_hashlib(data):
    assert sha256(data) == hashlib.sha256(data).hexdigest()


def test_sha256_of_nothing_is_the_published_value():
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("below", ["a.bin", "deeper/a.bin"])
def test_a_file_is_no_folder_to_write_into(tmp_path, below):
    (tmp_path / "taken").write_text("a file")
    path = tmp_path / "taken" / below
    for write in (refuse_unwritable, lambda one: write_bytes(one, b"content")):
        with pytest.raises(InputError, match=r"must lie in a folder .*Received: .*taken, which is no folder"):
            write(path)
    refuse_unwritable(tmp_path / "new" / "deeper" / "a.bin")
    assert names(tmp_path) == {"taken"}


@pytest.mark.parametrize("name", ["", ".", "..", "/", "deeper/.."])
def test_what_has_no_name_of_its_own_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for refuse in (refuse_unwritable, lambda one: refuse_existing(one, overwrite=True), Bundle.check_target):
        with pytest.raises(InputError, match=r"must end in the name of what is written\. Received: '"):
            refuse(Path(name))
    refuse_unwritable(Path("deeper/../a.bin"))


@pytest.mark.parametrize("name", ["x" * 300, "new/" + "x" * 300, "x" * 300 + "/a.bin", "x" * 250])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, name):
    # The temporary name of `written_whole` is longer by ten characters than the one that is asked for.
    with pytest.raises(InputError, match=r"must be a place that can be written to\. Received: .* too long"):
        refuse_unwritable(tmp_path / name)
    assert names(tmp_path) == set()


def test_looking_for_a_name_that_is_too_long_is_refused(tmp_path):
    for look in (lambda one: refuse_existing(one, overwrite=False), free_name, stands, Bundle.check_target):
        with pytest.raises(InputError, match="too long"):
            look(tmp_path / ("x" * 300))


def test_a_name_as_long_as_can_be_written_is_taken(tmp_path):
    write_bytes(tmp_path / ("x" * 245), b"content")
    assert names(tmp_path) == {"x" * 245}


def test_a_folder_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    # The system's own word: a superuser may write anywhere.
    monkeypatch.setattr("mexit_edge.files.os.access", lambda folder, mode: False)
    with pytest.raises(InputError, match="which is not writable"):
        refuse_unwritable(tmp_path / "a.bin")


def test_write_bytes_makes_the_folders_above(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "file.bin", b"content")
    assert (tmp_path / "a" / "b" / "file.bin").read_bytes() == b"content"
    assert names(tmp_path / "a" / "b") == {"file.bin"}


def test_an_existing_file_is_refused_and_stays(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match=r"exists already.*Received: overwrite=False.*--overwrite"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"file.bin"}


def test_an_existing_file_is_replaced_with_overwrite(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    write_bytes(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == {"file.bin"}


def test_the_old_file_is_whole_while_the_new_one_is_written(tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with written_whole(target, overwrite=True) as fresh:
        fresh.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        assert fresh.parent.parent == tmp_path, "a rename is atomic only within one file system"
    assert target.read_bytes() == b"half"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = make_folder(tmp_path / "bundle", old="1")
    with written_whole(target, overwrite=True) as fresh:
        make_folder(fresh, new="2")
        assert names(target) == {"old"}
    assert names(target) == {"new"}
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full"), ValueError("x")])
@pytest.mark.parametrize("folder", [False, True])
def test_an_error_inside_leaves_the_old_one_and_no_litter(tmp_path, error, folder):
    target = tmp_path / "thing"
    if folder:
        make_folder(target, old="1")
    else:
        target.write_text("1")

    def write_half():
        with written_whole(target, overwrite=True) as fresh:
            make_folder(fresh, new="2") if folder else fresh.write_text("2")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert ((target / "old") if folder else target).read_text() == "1"
    assert names(tmp_path) == {"thing"}


def test_a_block_that_writes_nothing_leaves_the_old_folder(tmp_path):
    target = make_folder(tmp_path / "bundle", old="1")
    with pytest.raises(FileNotFoundError), written_whole(target, overwrite=True):
        pass
    assert names(target) == {"old"}
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize("at_call", [1, 2])
@pytest.mark.parametrize("after_the_renaming", [False, True])
def test_an_interrupt_around_each_renaming_leaves_one_whole_folder(
    tmp_path, monkeypatch, at_call, after_the_renaming
):
    target = make_folder(tmp_path / "bundle", old="1")
    rename, calls = Path.rename, []

    def interrupted(self, goal):
        calls.append(goal)
        if len(calls) == at_call and not after_the_renaming:
            raise KeyboardInterrupt
        rename(self, goal)
        if len(calls) == at_call:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), written_whole(target, overwrite=True) as fresh:
        make_folder(fresh, new="2")
    # Only when the second renaming is done does the new folder stand in place of the old one.
    assert names(target) == ({"new"} if (at_call, after_the_renaming) == (2, True) else {"old"})
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.EACCES, "denied")], ids=["interrupt", "denied"]
)
def test_a_renaming_back_that_fails_too_keeps_both_folders_and_names_them(tmp_path, monkeypatch, error):
    target = make_folder(tmp_path / "bundle", old="1")
    rename, calls = Path.rename, []

    def failing(self, goal):
        calls.append(self)
        if len(calls) > 1:
            raise error
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(RunError, match=r"must be put back by hand.*Received: ") as caught,
        written_whole(target, overwrite=True) as fresh,
    ):
        make_folder(fresh, new="2")
    assert caught.value.__cause__ is error
    fresh, aside = calls[1:]
    assert f"Rename {aside}, the old one, or {fresh}, the new one." in str(caught.value)
    assert (names(aside), names(fresh)) == ({"old"}, {"new"})


def test_overwriting_a_link_to_a_folder_spares_what_it_points_to(tmp_path):
    elsewhere = make_folder(tmp_path / "elsewhere", precious="1")
    link = tmp_path / "bundle"
    link.symlink_to(elsewhere)
    with written_whole(link, overwrite=True) as fresh:
        make_folder(fresh, new="2")
    assert names(elsewhere) == {"precious"}
    assert not link.is_symlink()
    assert names(link) == {"new"}


def test_refuse_existing_lets_a_free_name_pass(tmp_path):
    refuse_existing(tmp_path / "free", overwrite=False)
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="exists already"):
        refuse_existing(tmp_path, overwrite=False)


def test_free_name_counts_up_and_keeps_the_suffix(tmp_path):
    wanted = tmp_path / "hapt.mexit"
    assert free_name(wanted) == wanted
    wanted.mkdir()
    assert free_name(wanted) == tmp_path / "hapt-2.mexit"
    (tmp_path / "hapt-2.mexit").mkdir()
    assert free_name(wanted) == tmp_path / "hapt-3.mexit"


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    message = str(unknown_name("score", "entropi", ["margin", "entropy"]))
    assert message == (
        "`score` must be one of: entropy, margin. Received: 'entropi'. Did you mean 'entropy'?"
    )


@pytest.mark.parametrize("received", ["zzz", 3, None])
def test_an_unknown_name_far_from_all_gets_no_suggestion(received):
    message = str(unknown_name("score", received, ["margin", "entropy"]))
    assert message == f"`score` must be one of: entropy, margin. Received: {received!r}."


def test_a_missing_extra_says_how_to_install_it():
    error = MissingExtraError("matplotlib", "report")
    assert error.extra == "report"
    assert str(error) == "matplotlib is not installed. Install it with: pip install 'mexit-edge[report]'"


def test_errors_are_also_the_standard_ones():
    assert issubclass(InputError, ValueError)
    assert issubclass(MissingExtraError, InputError)
    assert issubclass(RunError, RuntimeError)
    assert not issubclass(RunError, InputError)

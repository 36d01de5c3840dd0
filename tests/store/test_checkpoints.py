"""Checkpoints as a store of bytes: written whole, verified, pruned; no network in sight."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from condgen.errors import MachineError, ModelError
from condgen.store import checkpoints as module
from condgen.store.checkpoints import FILES, MANIFEST, Checkpoint, Checkpoints


def content(step: int) -> list[tuple[str, bytes]]:
    return [(name, f"{name} of {step}".encode() * 20) for name in FILES]


def make(folder: Path, *steps: int) -> tuple[Checkpoints, list[str]]:
    lines: list[str] = []
    checkpoints = Checkpoints(folder / "checkpoints", lines.append)
    for step in steps:
        checkpoints.write(step, 1000, content(step), {"samples": 7 * step})
    return checkpoints, lines


def test_round_trip_and_numeric_order(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 9999, 10000, 100000000)
    assert sorted(os.listdir(checkpoints.folder)) == ["step-00009999", "step-00010000", "step-100000000"]
    assert checkpoints.steps() == [9999, 10000, 100000000]
    newest = Checkpoints(checkpoints.folder, print).newest()
    assert newest is not None and newest.step == 100000000 and newest.manifest["samples"] == 700000000
    assert [(name, newest.read(name)) for name in FILES] == content(100000000)
    assert newest.manifest["files"]["state.json"]["sha256"] == hashlib.sha256(content(100000000)[3][1]).hexdigest()


def test_no_checkpoint_is_not_an_error(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path)
    assert checkpoints.newest() is None
    with pytest.raises(ModelError, match=r"no checkpoint of step 3 \(there is: none\)"):
        checkpoints.open(3)


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.with_name("elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    elif kind == "other step's":
        shutil.copy(path.parents[1] / "step-00000001" / path.name, path)
    elif kind != "removed":
        cut, longer = content[:-2], content + b"0"
        path.write_bytes({"cut": cut, "longer": longer, "empty": b"", "zeroed": bytes(len(content))}[kind])


@pytest.mark.parametrize("file", (*FILES, MANIFEST))
@pytest.mark.parametrize(
    "kind", ["cut", "longer", "empty", "zeroed", "removed", "folder", "pipe", "link", "other step's"]
)
def test_damage_is_named_and_passed_over(tmp_path: Path, file: str, kind: str) -> None:
    checkpoints, lines = make(tmp_path, 1, 2)
    damage(checkpoints.folder / "step-00000002" / file, kind)
    fresh = Checkpoints(checkpoints.folder, lines.append)
    newest = fresh.newest()
    assert newest is not None and newest.step == 1
    assert len(lines) == 1 and lines[0].startswith("checkpoint 2 is passed over: ") and file in lines[0]
    with pytest.raises(ModelError) as caught:  # one that is named is loaded or refused, never replaced
        fresh.open(2)
    assert caught.value.exit_code == 4 and file in caught.value.message


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1)
    checked = 0
    for n, file in enumerate((*FILES, MANIFEST)):
        path = checkpoints.folder / "step-00000001" / file
        good = path.read_bytes()
        before = [(name, (checkpoints.folder / "step-00000001" / name).read_bytes()) for name in FILES]
        for place in range(n % 3, len(good), 13):
            for bit in range(8):
                path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
                try:
                    found = checkpoints.open(1)
                except ModelError:
                    checked += 1
                else:  # white space of the manifest
                    assert file == MANIFEST and [(name, found.read(name)) for name in FILES] == before
        path.write_bytes(good)
    assert checked > 1000


def test_two_files_swapped(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1)
    folder = checkpoints.folder / "step-00000001"
    (folder / FILES[0]).rename(folder / "aside")
    (folder / FILES[1]).rename(folder / FILES[0])
    (folder / "aside").rename(folder / FILES[1])
    with pytest.raises(ModelError, match=FILES[0]):
        checkpoints.open(1)


def test_a_renamed_folder_is_not_another_step(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1)
    (checkpoints.folder / "step-00000001").rename(checkpoints.folder / "step-00000002")
    with pytest.raises(ModelError, match="not the manifest of this checkpoint"):
        checkpoints.open(2)


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1)
    (checkpoints.folder / "step-00000001").rename(tmp_path / "elsewhere")
    (checkpoints.folder / "step-00000001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="not a folder of its own"):
        checkpoints.open(1)


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1, 2)
    for step in (1, 2):
        (checkpoints.folder / f"step-0000000{step}" / MANIFEST).unlink()
    with pytest.raises(ModelError, match=r"no checkpoint that can be used \(of step 2: .*[^.]\); restore"):
        checkpoints.newest()


def test_other_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 2)
    checkpoints, _ = make(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(ModelError, match="has the format 2, this condgen reads 1"):
        checkpoints.open(1)


def test_written_twice(tmp_path: Path) -> None:
    """A good one stays unless it is to be replaced; a damaged one is set aside, never written into."""
    checkpoints, lines = make(tmp_path, 1)
    checkpoints.write(1, 10, [(name, b"new") for name in FILES], {})
    assert checkpoints.open(1).read(FILES[0]) == content(1)[0][1] and not lines
    checkpoints.write(1, 10, [(name, b"new") for name in FILES], {}, replace=True)
    assert checkpoints.open(1).read(FILES[0]) == b"new" and os.listdir(checkpoints.folder) == ["step-00000001"]
    for name in (".broken", ".broken-2"):
        (checkpoints.folder / "step-00000001" / FILES[0]).unlink()
        checkpoints.write(1, 10, content(1), {})
        assert (checkpoints.folder / f"step-00000001{name}").is_dir()
    assert checkpoints.steps() == [1] and len(lines) == 2


def test_start_cleans_up_after_a_killed_writer(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1, 2, 3)
    folder = checkpoints.folder
    (folder / ".tmp-step-00000004-99-0123abcd").mkdir()
    (folder / ".tmp-step-00000004-99-0123abcd" / "model.safetensors").write_bytes(b"half")
    (folder / "step-00000001").rename(folder / ".trash-step-00000001-99-0123abcd")
    (folder / "step-00000003").rename(folder / ".old-step-00000003-99-0123abcd")  # killed while it was replaced
    strangers = [".tmp-mine", "step-7", "notes", ".trash-step-00000001"]
    for name in strangers:
        (folder / name).mkdir()
    checkpoints.clean()
    assert sorted(os.listdir(folder)) == sorted([*strangers, "step-00000002", "step-00000003"])
    assert Checkpoints(folder, print).open(3).read(FILES[0]) == content(3)[0][1]


def test_short_of_room(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path, 1)
    with pytest.raises(MachineError, match=r"MiB are needed.*earlier checkpoints are untouched") as caught:
        checkpoints.write(2, 1 << 60, content(2), {})
    assert caught.value.exit_code == 6 and checkpoints.steps() == [1]


def test_readers_follow_a_writer_that_prunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vanishes between listing and reading is no damage."""
    checkpoints, lines = make(tmp_path, 1, 2)
    verify = Checkpoint.verify

    def pruned_meanwhile(self: Checkpoint) -> None:
        if self.step == 2:
            shutil.rmtree(self.folder)
        verify(self)

    monkeypatch.setattr(Checkpoint, "verify", pruned_meanwhile)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 1 and not lines


FAULTS = ("write", "fsync", "rename", "mkdir")


@pytest.mark.parametrize("call", FAULTS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_any_failing_call_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """The n-th call of each kind fails, for every n there is."""
    real = getattr(os, call)
    for n in itertools.count(1):
        (tmp_path / str(n)).mkdir()
        checkpoints, _ = make(tmp_path / str(n), 1)
        count = 0

        def faulty(*args: Any, n: int = n, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == n:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, call, faulty)
        try:
            checkpoints.write(2, 10, content(2), {})
        except MachineError as error:
            assert os.strerror(code) in error.message
        else:
            assert count < n  # nothing failed: all calls have had their turn
            break
        finally:
            monkeypatch.setattr(os, call, real)
        after = Checkpoints(checkpoints.folder, print)
        after.clean()
        newest = after.newest()
        # the very last flush may fail when the rename is done: then the new one is there, whole
        assert newest is not None and (newest.step == 1 or (call, count) == ("fsync", n))
        assert after.open(1).read(FILES[0]) == content(1)[0][1]
        after.write(2, 10, content(2), {})
        assert after.open(2).read(FILES[0]) == content(2)[0][1]
    assert n > 1


class Retention(RuleBasedStateMachine):
    """Any order of saving, pruning, damage and restarts keeps two good ones (if ever there were) and the best."""

    def __init__(self) -> None:
        super().__init__()
        number = itertools.count()
        self.folder = next(p for k in number if not (p := Path(self.home) / str(k)).exists())
        self.folder.mkdir()
        self.checkpoints, self.step, self.best = Checkpoints(self.folder / "checkpoints", lambda line: None), 0, 0
        self.damaged: set[int] = set()

    home: str

    @rule(gap=st.sampled_from([1, 2, 5000]), better=st.booleans(), keep_every=st.sampled_from([None, 2, 3]))
    def save(self, gap: int, better: bool, keep_every: int | None) -> None:
        self.step += gap
        self.checkpoints.write(self.step, 10, content(self.step), {})
        self.damaged.discard(self.step)
        if better or not self.best:
            self.best = self.step
        before = set(self.checkpoints.steps())
        self.checkpoints.prune(self.best, keep_every)
        gone = before - set(self.checkpoints.steps())
        assert not any(keep_every and step % keep_every == 0 for step in gone)
        assert len(self.checkpoints.steps()) <= 3 + len(before) or keep_every

    @precondition(lambda self: self.checkpoints.steps())
    @rule()
    def rot(self) -> None:
        newest = self.checkpoints.steps()[-1]
        if newest != self.best and newest not in self.damaged:
            (self.checkpoints.folder / f"step-{newest:08d}" / FILES[0]).write_bytes(b"rot")
            self.damaged.add(newest)

    @rule()
    def restart(self) -> None:
        self.checkpoints = Checkpoints(self.checkpoints.folder, lambda line: None)
        self.checkpoints.clean()
        newest = self.checkpoints.newest() if set(self.checkpoints.steps()) - self.damaged else None
        self.step = newest.step if newest else self.step

    @invariant()
    def kept(self) -> None:
        steps = set(self.checkpoints.steps())
        assert not self.best or self.best in steps
        good = [step for step in steps if step not in self.damaged]
        assert not self.best or good
        for step in good:
            Checkpoint(self.checkpoints.folder / f"step-{step:08d}").verify()


def test_retention(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Retention.home = str(tmp_path)
    run_state_machine_as_test(
        Retention, settings=settings(max_examples=12, stateful_step_count=12, derandomize=True, deadline=None)
    )


def test_two_newest_best_and_multiples_stay(tmp_path: Path) -> None:
    checkpoints, _ = make(tmp_path)
    for step in range(1, 13):
        checkpoints.write(step, 10, content(step), {})
        checkpoints.prune(3 if step >= 3 else None, 5)
    assert checkpoints.steps() == [3, 5, 10, 11, 12]

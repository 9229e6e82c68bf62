"""The recorder of live cameras and its alarms on a disk that refuses changes."""

import json
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.cameras import recorder, watch
from engine.cameras.alarms import ALARMS, AlarmFile
from engine.cameras.recorder import Limits, Recorder
from engine.cameras.sources import Shot
from engine.cameras.watcher import Report, TrackedFrame, Watcher
from engine.index.local import PEOPLE, LocalPeople, open_people, writing
from engine.index.records import Origin
from models.outputs import Detections

SECONDS = 1769846400.0  # 2026-01-31


def seen_at(second: float, tracklets: list[int]) -> TrackedFrame:
    count = len(tracklets)
    boxes = torch.tensor([[0.0, 0, 4, 8]]).repeat(count, 1)
    people = Detections(boxes, torch.ones(count), torch.eye(count, 64))
    return TrackedFrame(SECONDS + second, torch.zeros(3, 8, 8).byte(), people, tracklets)


def record(recorder: Recorder, *frames: TrackedFrame) -> None:
    """Let a recorder write a report, and what it writes at its end."""
    recorder.put(0, Report(list(frames), [], frozenset(frames[-1].tracklets)))
    recorder.reports.put(None)
    recorder.run()


def test_no_two_tracklets_have_one_number_after_a_full_disk(tmp_path: Path, capsys) -> None:
    """Nothing of a report that was not written is left, not even the number of tracklet 1."""
    people = LocalPeople(tmp_path / PEOPLE)
    recorder = Recorder(people, tmp_path, ["hall"], Limits(), None)
    ((pages,),) = people.select("PRAGMA page_count")
    people.select(f"PRAGMA max_page_count = {pages}")
    record(recorder, seen_at(0, [1]), seen_at(1, list(range(1, 500))))
    assert people.count() == 0
    people.select("PRAGMA max_page_count = 9999")
    record(recorder, seen_at(2, [500, 1]))
    assert people.select("SELECT DISTINCT appearance FROM people") == [(1,), (2,)]
    assert people.select("SELECT SUM(bytes) FROM pictures") == [(recorder.pictures.bytes,)]
    assert "full" in capsys.readouterr().err


def test_faiss_loses_who_is_too_old(tmp_path: Path, monkeypatch) -> None:
    """It does so while the program runs, at most a day later."""
    pytest.importorskip("faiss")
    origin = Origin("net.pth", "", np.eye(64, dtype=np.float32)[0])
    with writing(tmp_path, origin) as people:
        record(Recorder(people, tmp_path, ["hall"], Limits(), None), seen_at(0, [1, 2]))
    assert len(open_people(tmp_path).vectors.ids) == 2
    monkeypatch.setattr(recorder, "FORGOTTEN", -1.0)
    with writing(tmp_path, origin) as people:
        late = Recorder(people, tmp_path, ["hall"], Limits(days=1), None)
        late.followed = people.last_given()
        late._care()
        assert people.count() == 0 and len(open_people(tmp_path).vectors.ids) == 0


def test_a_disk_that_refuses_everything_does_not_end_the_recorder(tmp_path: Path, capsys) -> None:
    """Old people are due to be removed too."""
    people = LocalPeople(tmp_path / PEOPLE)
    recorder = Recorder(people, tmp_path, ["hall"], Limits(days=1), None)
    people.select("PRAGMA query_only = ON")
    record(recorder, seen_at(0, [1]))
    assert recorder.error is None and len(capsys.readouterr().err.splitlines()) == 1
    people.select("PRAGMA query_only = OFF")
    record(recorder, seen_at(1, [1]))
    assert recorder.error is None and people.last_given() == 1


def test_a_line_that_a_full_disk_cuts_off_is_dropped(tmp_path: Path, capsys) -> None:
    file, limits = AlarmFile(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    file.write({"a": 1})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, limits[1]))
        file.write({"a": "long" * 9})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.write({"a": 3})
    lines = (tmp_path / ALARMS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"a": 3}]


def test_a_camera_whose_frames_cannot_be_processed_is_named(capsys) -> None:
    def fail(_):
        raise RuntimeError("too narrow")

    shots = [Shot(1, SECONDS + second, torch.zeros(3, 8, 8).byte()) for second in (0, 1)]
    recorder = SimpleNamespace(cameras=["hall", "lobby"], put=lambda *_: None)
    watchers = [Watcher([], 0.5), Watcher([], 0.5)]
    broken = SimpleNamespace(detect=fail)
    assert watch.watch([[shot] for shot in shots], broken, watchers, recorder, lambda: False) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lobby: ") and "too narrow" in line

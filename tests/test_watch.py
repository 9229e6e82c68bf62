"""tools.watch: its index, output and alarms, and the effects of a full disk or a kill."""

import json
import os
import sqlite3
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.cameras import alarms, recorder
from engine.cameras.alarms import ALARMS, AlarmFile, Sender
from engine.cameras.pictures import Pictures
from engine.cameras.sources import Camera
from engine.index.gallery_index import open_index
from engine.index.local import PEOPLE, LocalPeople
from engine.index.people import People
from engine.index.records import Sample, Source, camera_of, camera_path
from engine.index.tracklets import Tracklets
from models.outputs import Detections
from tests.crowds import make_world, moving
from tests.streams import http_server
from tests.training import fork
from tests.videos import write_video
from tools import identities, watch
from utils.errors import UserError

BEGAN = "2026-01-31T08:00:00+00:00"
SECONDS = 1769846400.0  # the same
WANTED = ("--watch-for", "Anna={}/gallery/s0.jpg:1", "--min-similarity", "0.5")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faiss")
    folder = make_world(tmp_path_factory.mktemp("watch"))
    write_video(folder / "hall.mp4", moving(25))
    write_video(folder / "door.mp4", moving(25, 2))
    return folder


def arguments(base: Path, index: Path, *more: object) -> list[str]:
    network = "--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth"
    return [str(word).format(base) for word in (*network, "--index", index, *more)]


def recorded(base: Path, index: Path, *more: object) -> list[str]:
    sources = "--recorded", BEGAN, base / "hall.mp4", f"lobby={base / 'door.mp4'}"
    return arguments(base, index, *more, *sources)


def files_and_rows(index: Path) -> tuple[set[str], set[str]]:
    """Return the pictures in the folder, and those that the index lists."""
    files = {f"{path.parent.name} {path.stem}" for path in index.glob("pictures/*/*")}
    rows = People(index / PEOPLE).select(
        "SELECT path, time FROM pictures JOIN sources ON source = sources.id"
    )
    return files, {f"{camera_of(Path(os.fsdecode(path)))} {time:.3f}" for path, time in rows}


def test_what_cameras_saw_is_in_the_index(base: Path, tmp_path: Path, program) -> None:
    index = tmp_path / "people"
    code, out, _ = program(watch.main, *recorded(base, index, *WANTED))
    assert code == 0
    fired = [json.loads(line) for line in out.splitlines()]
    assert out == (index / ALARMS).read_text()
    assert {one["camera"] for one in fired} == {"hall", "lobby"}
    assert len({(one["name"], one["tracklet"]) for one in fired}) == len(fired) > 0
    for one in fired:
        assert one["similarity"] >= 0.5 and one["false_alarms"] is None
        assert Path(one["picture"]).is_file() and len(one["box"]) == 4
    files, rows = files_and_rows(index)
    assert files == rows
    people = open_index(index).people
    assert [camera_of(one.source.path) for one in people.known()] == ["hall", "lobby"]
    spans = people.select("SELECT MIN(time), MAX(time) FROM people GROUP BY appearance")
    assert all(SECONDS <= first <= last <= SECONDS + 2.4 for first, last in spans)
    tracklets = [row[0] for row in people.select("SELECT DISTINCT appearance FROM people")]
    assert people.pictured(tracklets).keys() == set(tracklets)
    seen = people.select("SELECT appearance, time FROM people")
    assert len(set(seen)) == len(seen)  # a tracklet is at most once in a frame


def test_a_recording_is_indexed_once(base: Path, tmp_path: Path, program) -> None:
    """The next recording of the same camera may begin before the end of the last one."""
    index = tmp_path / "people"
    hall = "--recorded", BEGAN, base / "hall.mp4"
    assert program(watch.main, *arguments(base, index, *hall))[0] == 0
    before = open_index(index).people.count()
    for words in (hall, ("--recorded", BEGAN.replace(":00+", ":01+"), base / "hall.mp4")):
        code, _, err = program(watch.main, *arguments(base, index, *words))
        assert code == 2 and len(err.splitlines()) == 1 and "hall: " in err
    assert open_index(index).people.count() == before > 0
    later = "--recorded", BEGAN.replace(":00+", ":02+"), base / "hall.mp4"  # 2.5 s long
    assert program(watch.main, *arguments(base, index, *later))[0] == 0
    assert open_index(index).people.count() > before
    forget = "--index", index, "--forget", "--camera", "hall"
    assert program(identities.main, *map(str, forget))[0] == 0
    assert program(watch.main, *arguments(base, index, *hall))[0] == 0


def test_a_search_shows_the_picture_of_a_camera(base: Path, tmp_path: Path, program) -> None:
    from engine.search.program import run

    index = tmp_path / "people"
    program(watch.main, *recorded(base, index))
    query = "--query", base / "query.jpg", "--person", 1, "--out", tmp_path / "found"
    line = arguments(base, index, *query, "--camera", "hall", "--top", 3)
    assert program(lambda: run(None), *line)[0] == 0
    matches = json.loads((tmp_path / "found/matches.json").read_text())
    assert [one["camera"] for one in matches] == ["hall"] * 3
    assert all(Path(one["image"]).is_file() for one in matches)
    assert all(one["from"] <= one["to"] for one in matches)
    after = ("--after", "2026-01-31T08:00:02+00:00")
    assert program(lambda: run(None), *line, *after)[0] == 0
    late = json.loads((tmp_path / "found/matches.json").read_text())
    assert late and all(one["to"] >= "2026-01-31T08:00:02" for one in late)
    assert program(lambda: run(None), *line, "--after", "2027-01-31")[0] == 0
    assert json.loads((tmp_path / "found/matches.json").read_text()) == []
    assert program(lambda: run(None), *line, "--before", "noon")[0] == 2
    assert program(lambda: run(None), *line, "--camera", "cellar")[0] == 2
    code, _, err = program(lambda: run(None), *line, "--persons")
    assert code == 0 and "person 0: 3 " in err


def test_bad_arguments_are_one_line(base: Path, tmp_path: Path, program) -> None:
    hall = str(base / "hall.mp4")
    for words in (
        (),
        (hall, hall, "--name", f"a={hall}", "--name", f"a={hall}"),
        (hall, "--watch-for", "Anna=x.jpg"),
        (hall, "--min-similarity", 0.5),
        (hall, "--recorded", "2999-01-31"),
        (hall, *WANTED[:2], "--false-alarms", 0.03),
        (hall, *WANTED, "--post", "ftp://user:secret@host/"),
        (hall, *WANTED, "--post", ""),
        (hall, *WANTED, "--post", "httpx://host/"),
        (hall, "--keep-days", 0),
        (hall, "--recorded", ""),
        (hall, "--recorded", "today"),
        (hall, "--recorded", "2000-01-31T08:00", "--keep-days", 7),
        (hall, "INPUT.MAX_PIXELS", 1000),
        ("/dev/video0", "--recorded", BEGAN),
        ("rtmp://user:secret@host/x",),
        (str(base / "gone.mp4"),),
    ):
        code, _, err = program(watch.main, *arguments(base, tmp_path / "people", *words))
        assert code == 2 and len(err.splitlines()) == 1 and "secret" not in err, words
    assert not (tmp_path / "people").exists()


def test_only_the_given_option_is_named(base: Path, tmp_path: Path, program) -> None:
    words = arguments(base, tmp_path / "people", base / "hall.mp4", "--min-similarity", 0.5)
    code, _, err = program(watch.main, *words)
    assert code == 2 and "--min-similarity" in err and "--post" not in err


def test_a_photograph_of_several_people(base: Path, tmp_path: Path, program) -> None:
    """The message names the option of this program."""
    line = base / "hall.mp4", WANTED[0], WANTED[1].removesuffix(":1"), *WANTED[2:]
    code, _, err = program(watch.main, *arguments(base, tmp_path / "people", *line))
    assert code == 2 and "--query" not in err
    assert f"with --watch-for Anna={base}/gallery/s0.jpg:N, N from 1 to 5" in err


def test_a_full_disk_stops_the_pictures_alone(base, tmp_path, program, monkeypatch) -> None:
    def full(*_) -> int:
        raise UserError("the disk is full")

    monkeypatch.setattr(Pictures, "write", full)
    index = tmp_path / "people"
    code, out, err = program(watch.main, *recorded(base, index, *WANTED))
    assert code == 0 and err.count("the disk is full") == 1
    assert out and all(json.loads(line)["picture"] is None for line in out.splitlines())
    assert open_index(index).people.count() > 0


def test_the_oldest_pictures_go_first(base: Path, tmp_path: Path, program) -> None:
    index = tmp_path / "people"
    program(watch.main, *recorded(base, index, "--max-gb", 30e-6))
    files, rows = files_and_rows(index)
    assert files == rows
    kept = sorted(float(name.split()[1]) for name in files)
    times = [t for (t,) in open_index(index).people.select("SELECT time FROM people")]
    assert sum(path.stat().st_size for path in index.glob("pictures/*/*")) <= 30_000
    assert kept[0] > min(times)
    program(watch.main, *arguments(base, index, "--keep-days", 1, base / "door.mp4"))
    times = [t for (t,) in open_index(index).people.select("SELECT time FROM people")]
    assert times and min(times) > SECONDS + 3600  # the recordings are older than a day
    files, rows = files_and_rows(index)
    assert files == rows and {name.split()[0] for name in files} == {"door"}


def test_old_people_are_removed_while_nobody_is_seen(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(recorder, "CARE", 0.02)
    hall, old = Source(camera_path("hall"), 0, 0, 1.0), time.time() - 8 * recorder.DAY
    people, other = LocalPeople(tmp_path / PEOPLE), People(tmp_path / PEOPLE)
    thread = recorder.Recorder(people, tmp_path, ["hall"], recorder.Limits(7.0), None)
    thread.start()
    for _ in range(2):  # before and after a removal
        other.add_tracked(hall, [(Sample(old, person(0)), [None])])
        began = time.monotonic()
        while other.count() and time.monotonic() - began < 30:
            time.sleep(0.01)
        assert other.count() == 0
    thread.stop()


def test_all_cameras_have_one_clock(tmp_path: Path, capsys) -> None:
    """If the machine's clock was set back, the times of all continue after the latest one."""
    people, ahead = People(tmp_path / PEOPLE), time.time() + 3600
    for name, second in (("hall", SECONDS), ("door", ahead)):
        source = Source(camera_path(name), 0, 0, 1.0)
        people.add_tracked(source, [(Sample(second, person(0)), [None])])
    clock = watch.clock_of(people, [Camera(name, "") for name in ("hall", "door", "yard")])
    assert clock.now() >= ahead and "door: " in capsys.readouterr().err
    assert watch.clock_of(people, [Camera("hall", "")]).ahead() < 1


# --- tracklets and alarms by themselves ---


def person(x: float, embedding: int = 0) -> Detections:
    box = torch.tensor([[x, 10.0, x + 20, 60]])
    return Detections(box, torch.ones(1), torch.eye(4)[embedding : embedding + 1])


@pytest.mark.parametrize(
    ("gap", "x", "embedding", "same"),
    [
        (0.1, 5, 0, True),
        (1.0, 45, 0, True),  # no overlap, but in reach
        (0.1, 45, 0, False),
        (1.0, 5, 1, False),
        (2.5, 5, 0, True),  # the sample before this one, however long ago
        (2.5, 45, 0, False),
    ],
)
def test_who_continues_a_tracklet(gap: float, x: float, embedding: int, same: bool) -> None:
    for began in (0.0, SECONDS):
        tracklets = Tracklets()
        assert tracklets.link(began, person(0)) == [None]
        tracklets.add(began, person(0), [7])
        assert tracklets.link(began + gap, person(x, embedding)) == [7 if same else None]


def test_who_was_out_of_sight_comes_back() -> None:
    tracklets = Tracklets()
    tracklets.add(SECONDS, person(0), [7])
    tracklets.add(SECONDS + 1.5, person(200, 1), [8])
    assert tracklets.link(SECONDS + 1.9, person(10)) == [7]
    tracklets.add(SECONDS + 2.1, person(200, 1), [8])
    assert tracklets.link(SECONDS + 2.2, person(10)) == [None]


def test_two_who_cross_keep_their_tracklets() -> None:
    """They look alike; the direction in which each of them walks decides."""
    tracklets, numbers = Tracklets(), count(1)
    for step in range(21):
        one, other = person(10.0 * step), person(200 - 10.0 * step)
        both = Detections(torch.cat([one.boxes, other.boxes]), torch.ones(2), torch.eye(4)[[0, 0]])
        assert tracklets.extend(SECONDS + 0.1 * step, both, numbers) == [1, 2]


def test_the_mean_embedding_outweighs_a_single_detection() -> None:
    tracklets = Tracklets()
    apart = Detections(
        torch.cat([person(0).boxes, person(12).boxes]), torch.ones(2), torch.eye(4)[:2]
    )
    for step in range(5):
        tracklets.add(SECONDS + 0.1 * step, apart, [7, 8])
    odd = torch.nn.functional.normalize(torch.tensor([[1.0, 1.2, 0, 0]]))
    tracklets.add(SECONDS + 0.5, Detections(person(0).boxes, torch.ones(1), odd), [7])
    assert tracklets.link(SECONDS + 0.6, person(6)) == [7]
    assert tracklets.link(SECONDS + 0.6, person(6, 1)) == [8]


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path, capsys) -> None:
    (tmp_path / ALARMS).write_text('{"a": 1}\n{"a"')
    AlarmFile(tmp_path).write({"a": 2})
    assert (tmp_path / ALARMS).read_text() == '{"a": 1}\n{"a": 2}\n'
    assert capsys.readouterr().out == '{"a": 2}\n'


def test_an_alarm_with_a_name_that_is_not_utf8(tmp_path: Path, capsys) -> None:
    record = {"name": "Zo\udceb", "picture": "Foto \xeb.jpg"}
    AlarmFile(tmp_path).write(record)
    assert json.loads((tmp_path / ALARMS).read_bytes()) == record


def test_a_receiver_that_is_down_loses_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(alarms, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(alarms, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(alarms, "POLL", 0.01)
    file, got, down = AlarmFile(tmp_path), [], [True]

    def answer(handler, body: bytes) -> None:
        number = json.loads(body)["number"]
        status = 503 if down[0] else 422 if number == 3 else 200
        got.append((number, status))
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def wait_for(ready) -> None:
        until = time.monotonic() + 30
        while not ready() and time.monotonic() < until:
            time.sleep(0.01)

    with http_server(answer) as address:
        url = address.replace("http://", "http://user:secret@") + "/hook?token=secret"
        file.write({"number": 0})  # before anyone wanted it
        sender = Sender(tmp_path, url)
        sender.start()
        for number in (1, 2):
            file.write({"number": number})
        wait_for(lambda: len(got) >= 3)
        sender.stop()
        down[0] = False
        again = Sender(tmp_path, url)  # another process, later
        for number in (3, 4):
            file.write({"number": number})
        again.start()
        wait_for(lambda: got[-1:] == [(4, 200)])
        again.stop()
    assert [number for number, status in got if status == 200] == [1, 2, 4]
    assert got.count((3, 422)) == alarms.TRIES
    said = "".join(capsys.readouterr())
    assert "secret" not in said and "secret" not in (tmp_path / alarms.SENT).read_text()


def test_a_receiver_that_redirects_has_not_accepted(tmp_path: Path) -> None:
    """The answer to a redirected request, which has no alarm in it, is no acceptance."""
    asked = []

    def answer(handler, body: bytes) -> None:
        asked.append((handler.path, body))
        handler.send_response(301 if handler.path == "/hook" else 200)
        handler.send_header("Location", "/login")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with http_server(answer) as address:
        reason, refused = Sender(tmp_path, f"{address}/hook")._post(b"{}\n")
    assert "301" in reason and not refused
    assert asked == [("/hook", b"{}\n")]


def test_alarms_after_the_file_was_removed_are_sent(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(alarms, "POLL", 0.01)
    file, got = AlarmFile(tmp_path), []
    for numbers in ((1, 2), (3,)):
        sender = Sender(tmp_path, "http://127.0.0.1:9/")
        monkeypatch.setattr(
            sender, "_post", lambda line: (got.append(json.loads(line)["number"]), ("", False))[1]
        )
        for number in numbers:
            file.write({"number": number})
        sender.start()
        sender.stop()
        file.path.unlink()
    assert got == [1, 2, 3]


def test_a_full_disk_does_not_stop_the_sending(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(alarms, "POLL", 0.01)
    file, got, written = AlarmFile(tmp_path), [], alarms.write_text
    sender = Sender(tmp_path, "http://127.0.0.1:9/")
    monkeypatch.setattr(
        sender, "_post", lambda line: (got.append(json.loads(line)), ("", False))[1]
    )

    def full(text: str, path: Path) -> None:
        if len(got) < 3:
            raise UserError("the disk is full")
        written(text, path)

    monkeypatch.setattr(alarms, "write_text", full)
    for number in (1, 2, 3):
        file.write({"number": number})
    sender.start()
    sender.stop()
    assert [one["number"] for one in got] == [1, 2, 3]
    assert capsys.readouterr().err.count("the disk is full") == 1
    assert list(alarms.read_places(tmp_path / alarms.SENT).values()) == [42]


# --- a process that is killed ---


@pytest.mark.slow
def test_killed_at_any_moment(base: Path, tmp_path: Path) -> None:
    killed_at_any_moment(base, tmp_path / "people", 2, seed=0)


def killed_at_any_moment(base: Path, index: Path, kills: int, seed: int) -> None:
    """Kill tools.watch and start it again. No printed alarm and no earlier second may be lost."""
    rng = np.random.default_rng(seed)
    line = arguments(base, index, *WANTED, base / "hall.mp4", f"lobby={base / 'door.mp4'}")
    printed: list[str] = []
    for _ in range(kills):
        out = index.with_name("out")
        out.write_text("")
        process = fork(watch.main, ["watch", *line], out)
        while process.is_alive() and "{" not in out.read_text():
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 1.5)))
        process.kill()
        process.join()
        lines = out.read_text().splitlines(keepends=True)
        whole = [text for text in lines if text[0] == "{" and text[-1] == "\n"]
        assert whole
        printed += whole
        kept = (index / ALARMS).read_text()
        assert all(text in kept for text in printed)
        for text in whole:  # the person and the picture were written before the line
            one = json.loads(text)
            database = sqlite3.connect(index / PEOPLE)
            (count,) = database.execute(
                "SELECT COUNT(*) FROM people WHERE appearance = ?", [one["tracklet"]]
            ).fetchone()
            database.close()
            assert count and Path(one["picture"]).is_file()
    process = fork(watch.main, ["watch", *line], index.with_name("out"))
    process.join()
    assert process.exitcode == 0, index.with_name("out").read_text()
    files, rows = files_and_rows(index)
    assert files == rows
    assert list(index.glob("**/*.part")) == []

"""The app: its responses, its server, and its page in a real browser."""

import asyncio
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from configs.defaults import load_cfg
from engine.cameras.identities import identify, open_identities
from engine.cameras.tracklet_table import read_tracklets
from engine.index.gallery_index import open_index, writing
from engine.index.records import Sample, Source
from engine.search.searcher import Searcher
from models.outputs import Detections
from tests import test_identities as identity_index
from tests.crowds import make_world, moving, noise
from tests.videos import write_video
from tools import app, index_gallery
from tools.web import server
from tools.web.persons import PersonsController
from utils.errors import UserError, run_main

ROOT = Path(__file__).parent.parent
PATIENCE = 120  # seconds, for a page or a process
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures and a video, their index, and files to drop."""
    pytest.importorskip("faiss")
    folder = make_world(tmp_path_factory.mktemp("app"))
    write_video(folder / "walk.mp4", moving(20))
    sources = [folder / "gallery", folder / "walk.mp4", "--every", 0.5]
    line = ["index", *network(folder), "--index", folder / "index", *sources]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sys, "argv", [str(word) for word in line])
        run_main(index_gallery.main)
    shutil.copy(folder / "gallery" / "s1.png", folder / "dropped.png")
    (folder / "words.txt").write_text("no picture")
    whole = (folder / "query.jpg").read_bytes()
    (folder / "half <b>.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def network(folder: Path, ckpt: str = "everyone.pth") -> list:
    return ["--cfg", folder / "cfg.yaml", "--ckpt", folder / ckpt]


def make_controller(base: Path, ckpt: str = "everyone.pth") -> app.AppController:
    searcher = Searcher.load(load_cfg(str(base / "cfg.yaml")), base / ckpt)
    return app.AppController(searcher, lambda: open_index(base / "index", searcher.origin), 12)


# --- the controller, without a browser ---


def test_a_click_chooses_the_smallest_box_there() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [10, 10, 20, 20], [50, 0, 60, 40]])
    query = app.QueryPicture(Path("a.jpg"), Image.new("RGB", (720, 360)), 100 / 720, boxes)
    assert query.drawn().size == (720, 360)
    places = {(5, 5): 0, (15, 15): 1, (55, 30): 2, (45, 5): None, (15, 45): None}
    for (x, y), person in places.items():
        assert query.person_at(7.2 * x, 7.2 * y) == person


@pytest.mark.slow
def test_responses_to_a_picture_a_click_and_a_threshold(base: Path) -> None:
    controller = make_controller(base)
    assert controller.detect(None) == (None, None, "", [], [])
    query, _, said, _, _ = controller.detect(str(base / "query.jpg"))
    assert f"{len(query.boxes)} people found" in said
    assert controller.search(query, 0)[3] == controller.choose(query, 0, (-5, -5))[3] == []
    chosen, drawn, said, matches, scenes = controller.choose(query, 0, middle(query, 0))
    assert f" {chosen.person + 1}: " in said and " 12 " in said
    assert (len(matches), len(scenes), drawn.size) == (12, 12, (720, 480))
    *_, said, matches, scenes = controller.search(chosen, 1)
    assert "Not present: " in said and matches == scenes == []
    nobody, *_ = make_controller(base, "nobody.pth").detect(str(base / "query.jpg"))
    assert len(nobody.boxes) == 0


def test_the_threshold_0_leaves_out_nobody(base: Path, tmp_path: Path) -> None:
    controller = make_controller(base)
    query = controller.detect(str(base / "query.jpg"))[0]
    chosen = controller.choose(query, 0, middle(query, 0))[0]
    opposite = Detections(query.boxes[:1], torch.ones(1), -chosen.query_embeddings)
    with writing(tmp_path, controller.searcher.origin) as index:
        index.people.add(Source(base / "gallery" / "s0.jpg", 1, 1), [Sample(None, opposite)])
    controller.index = open_index(tmp_path)
    assert len(controller.search(chosen, 0)[3]) == 1
    assert controller.search(chosen, 0.01)[3] == []


def test_the_fields_of_the_form_select_people(base: Path) -> None:
    controller = make_controller(base)
    query = controller.detect(str(base / "query.jpg"))[0]
    chosen = controller.choose(query, 0, middle(query, 0))[0]
    found = controller.search(chosen, 0, (" s1, walk ,", "", " "))[3]
    assert found and all("s1.png" in text or "walk.mp4" in text for _, text in found)
    assert controller.search(chosen, 0, ("", "2026-01-31", ""))[3] == []  # files have no time
    for refused in (
        ("cellar", "", ""),
        ("", "yesterday", ""),
        ("", "2026-01-31", "2026-01-30"),
    ):
        *_, said, matches, _ = controller.search(chosen, 0, refused)
        assert 'class="bad"' in said and matches == []


def test_a_picture_that_is_gone_is_grey(base: Path, tmp_path: Path) -> None:
    controller = make_controller(base)
    query = controller.detect(str(base / "dropped.png"))[0]
    aside = shutil.move(base / "gallery" / "s1.png", tmp_path)
    try:
        _, _, said, _, scenes = controller.choose(query, 0, middle(query, 0))
    finally:
        shutil.move(aside, base / "gallery")
    assert len(scenes) == 12 and ": 1" in said
    grey = [caption for picture, caption in scenes if picture.getpixel((0, 0)) == (128, 128, 128)]
    assert grey and all("s1.png (" in caption for caption in grey)


def test_an_index_that_is_replaced_is_opened_again(base: Path, tmp_path: Path) -> None:
    searcher = Searcher.load(load_cfg(str(base / "cfg.yaml")), base / "everyone.pth")
    place = shutil.copytree(base / "index", tmp_path / "index")
    controller = app.AppController(searcher, lambda: open_index(place, searcher.origin), 12)
    query = controller.detect(str(base / "query.jpg"))[0]
    whole = controller.choose(query, 0, middle(query, 0))
    shutil.move(place, tmp_path / "old")
    assert str(place) in controller.search(whole[0], 0)[2]
    with writing(place, searcher.origin) as index:
        people = searcher.detect([base / "gallery" / "s0.jpg"])[0]
        index.people.add(Source(base / "gallery" / "s0.jpg", 1, 1), [Sample(None, people)])
    replaced = controller.search(whole[0], 0)
    assert len(replaced[3]) == len(people.boxes) < len(whole[3]) == 12


def test_people_are_shown_named_merged_and_split(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "people"
    with writing(folder, identity_index.ORIGIN) as index:
        identity_index.write(index.people, folder, range(10))
    found = read_tracklets(open_index(folder).people)
    identify(open_identities(folder, open_index(folder).people), found, 0.5)
    controller = PersonsController(lambda: open_index(folder), folder)
    pictures, numbers, said = controller.people()
    assert len(pictures) == len(numbers) == identity_index.PEOPLE_COUNT and "8 people" in said
    first, second = sorted(numbers[:2])
    _, _, said, number, *_, name, place, scene = controller.rename(first, " Otto")
    assert 'class="good"' in said and (number, name, place, scene) == (first, "Otto", -1, None)
    _, left, _, *person = controller.merge(second, f"{first}")
    assert len(left) == len(numbers) - 1
    number, shown, tracklets, line, name, *_ = person
    assert (number, name) == (first, "Otto") and "Otto" in line
    assert line.count("<i ") == len(shown) == len(tracklets) > 1
    _, again, _, number, _, left, *_, place, _ = controller.split(first, tracklets, 1)
    assert len(again) == len(numbers) and (number, place) == (first, -1)
    assert left == [tracklets[0], *tracklets[2:]]
    for refused in (
        controller.merge(first, "99"),
        controller.split(first, left, -1),
        controller.rename(0, "Eve"),
    ):
        assert 'class="bad"' in refused[2]
    assert controller.scene(first, 0).width > 0 and controller.scene(first, 99) is None
    shutil.rmtree(folder)
    assert 'class="bad"' in controller.person(first)[3] and controller.scene(first, 0) is None
    assert 'class="bad"' in controller.merge(first, "1")[2]


def test_the_state_of_a_visit_is_small(base: Path, tmp_path: Path) -> None:
    """The state is small even with a picture of 12 megapixels."""
    noise((400, 300), 1).resize((4000, 3000)).save(tmp_path / "large.jpg")
    query, *_ = make_controller(base).detect(str(tmp_path / "large.jpg"))
    size = len(query.small.tobytes()) + len(pickle.dumps((query.path, query.boxes)))
    assert size < 2 << 20 and query.scale == pytest.approx(4000 / 720)


def test_a_dropped_file_that_is_gone(base: Path, tmp_path: Path) -> None:
    controller = make_controller(base)
    dropped = shutil.copy(base / "query.jpg", tmp_path)
    query = controller.detect(str(dropped))[0]
    Path(dropped).unlink()
    *_, said, matches, _ = controller.choose(query, 0, middle(query, 0))
    assert said and matches == []


# --- requests that are refused, without a server ---


def answer(headers: dict[str, str], served: str = "127.0.0.1", names: set | None = None) -> tuple:
    """Return the status and headers of a response by an app with a permissive CORS header."""
    sent: list[dict] = []

    async def inner(scope, receive, send):
        cors = [(b"access-control-allow-origin", b"*"), (b"x", b"y")]
        await send({"type": "http.response.start", "status": 200, "headers": cors})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: dict) -> None:
        sent.append(message)

    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "method": "GET", "headers": raw, "server": (served, 7860)}
    names = names or server.names_of("127.0.0.1", "127.0.0.1")
    asyncio.run(server.Guard(inner, names, Path("."))(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_only_own_names_and_origins_are_answered() -> None:
    for host in ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"):
        status, headers = answer({"host": host})
        assert status == 200 and headers[b"x"] == b"y"
        assert not any(name.startswith(b"access-control") for name in headers)
    for host in (
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "",
        "[",
    ):
        assert answer({"host": host})[0] == 403
    own = {"host": "127.0.0.1:7860"}
    assert answer(own | {"origin": "http://127.0.0.1:7860"})[0] == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:8000",
        "http://localhost:7860",
        "http://[",
    ):
        assert answer(own | {"origin": origin})[0] == 403
    assert answer(own | {"content-length": str(server.MAX_UPLOAD + 1)})[0] == 413


def test_a_body_of_unknown_length_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is sent in chunks has no Content-Length."""
    monkeypatch.setattr(server, "MAX_UPLOAD", 10)
    chunks = [{"type": "http.request", "body": b"x" * 6, "more_body": True}] * 2
    read: list[str] = []

    async def inner(scope, receive, send):
        read.extend([(await receive())["type"] for _ in range(2)])

    async def receive() -> dict:
        return chunks.pop()

    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost")]}
    asyncio.run(server.Guard(inner, {"localhost"}, Path("."))(scope, receive, None))
    assert read == ["http.request", "http.disconnect"]


def test_the_names_of_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Desk7")
    monkeypatch.setattr(socket, "getfqdn", lambda: "desk7.example.org")
    names = server.names_of("0.0.0.0", "0.0.0.0")
    for host in ("localhost", "desk7", "desk7.example.org:80", "192.0.2.7:7860"):
        assert answer({"host": host}, "192.0.2.7", names)[0] == 200
    assert answer({"host": "192.0.2.8"}, "192.0.2.7", names)[0] == 403


def test_further_names_are_answered() -> None:
    """A proxy passes the name on that the browser uses."""
    names = server.names_of("127.0.0.1", "127.0.0.1", ["Search.example", "two.example"])
    for host in ("search.example", "two.example:443", "localhost"):
        assert answer({"host": host}, names=names)[0] == 200
        assert answer({"host": host, "origin": f"https://{host}"}, names=names)[0] == 200
    assert answer({"host": "three.example"}, names=names)[0] == 403
    assert answer({"host": "search.example", "origin": "http://two.example"}, names=names)[0] == 403
    for wrong in ("https://search.example", "search.example:80", "a/b", ""):
        with pytest.raises(UserError, match="--host-name"):
            server.names_of("127.0.0.1", "127.0.0.1", [wrong])


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "a.jpg").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{i}" / "a.jpg", (i, i))

    def left() -> list[str]:
        return sorted(path.parent.name for path in tmp_path.rglob("*.jpg"))

    server.trim(tmp_path, max_bytes=600, max_files=6)
    assert left() == list("012345")
    server.trim(tmp_path, max_bytes=450, max_files=6)
    assert left() == list("2345")
    server.trim(tmp_path, max_bytes=450, max_files=3)
    assert left() == list("345")


def middle(query: app.QueryPicture, person: int) -> tuple[float, float]:
    x1, y1, x2, y2 = (query.boxes[person] / query.scale).tolist()
    return (x1 + x2) / 2, (y1 + y2) / 2


def test_bad_arguments_are_one_line(base: Path, program) -> None:
    for ckpt, place, *more, key in (
        ("other.pth", "index", f"--index {base / 'index'}: "),
        ("everyone.pth", "none", f"--index {base / 'none'}: "),
        ("everyone.pth", "index", "--top", 0, "--top 0: "),
        ("everyone.pth", "index", "--port", 0, "--port 0: "),
    ):
        code, _, err = program(app.main, *network(base, ckpt), "--index", base / place, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(f"error: {key}")


def test_where_it_cannot_be_served(program, base: Path) -> None:
    """The port is in use or invalid, or the address is not of this machine or not IPv4."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = {("127.0.0.1", port): "in use", ("127.0.0.1", 70000): "port must be 0-65535"}
        places |= {("203.0.113.9", port): "requested address", ("::1", port): ""}
        places |= {("x" * 80, port): ""}
        for (host, number), why in places.items():
            where = ("--host", host, "--port", number)
            code, _, err = program(app.main, *network(base), "--index", base / "index", *where)
            assert (code, err.count("\n")) == (2, 1)
            assert f"--host {host} --port {number}: " in err and why in err


def test_an_empty_host_does_not_mean_every_address(program, base: Path, monkeypatch) -> None:
    monkeypatch.setattr(app, "serve", lambda *_: None)
    code, _, err = program(app.main, *network(base), "--index", base / "index", "--host", "")
    assert code == 2 and "--host: expected" in err


def test_a_name_of_this_machine_is_its_address() -> None:
    assert server.address_of("localhost", 0) == "127.0.0.1"


@pytest.mark.slow
def test_no_connection_leaves_the_machine() -> None:
    code = """
import socket
from tools.web.server import no_connections
block = no_connections("192.0.2.7")
block.__enter__()
for work in (lambda: socket.getaddrinfo("example.org", 80),
             lambda: socket.gethostbyname("example.org"),
             lambda: socket.socket().connect(("192.0.2.1", 80)),
             lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53))):
    try:
        work()
    except PermissionError as error:
        print(error)
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
print("home")
block.__exit__(None, None, None)
try:
    socket.getaddrinfo("192.0.2.1", 80)  # the hook stays, without effect
    print("free")
except PermissionError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    events = {"getaddrinfo": "example.org", "gethostbyname": "example.org"}
    events |= {"connect": "192.0.2.1", "sendto": "192.0.2.1"}
    said = [f"socket.{event}: {host} is not this machine" for event, host in events.items()]
    assert ran.stdout.splitlines() == [*said, "home", "free"], ran.stderr


# --- a running app ---


@pytest.fixture(scope="module")
def address(base: Path) -> Iterator[str]:
    """Return the address of a running `python -m tools.app`."""
    with running(base, ["-m", "tools.app"]) as (_, line):
        yield line.split()[0]
    assert list((base / "temporary").glob("person_search_*")) == []  # no file remains


@contextmanager
def running(base: Path, program: list[str]) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run an app within the context. Yield the process and its first line, which begins with the
    address."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *program, *network(base), "--index", base / "index", "--port", port]
    (base / "temporary").mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(base / "temporary")}
    process = subprocess.Popen(
        [*map(str, command)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port} ")
        yield process, line
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 143


def fetch(address: str, path: str, data: bytes | None = None, kind: str = "application/json"):
    """Send a request, and return (status, content)."""
    request = urllib.request.Request(address + path, data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address: str, path: Path) -> str:
    """Upload a file; return the path of the server's copy."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
    status, answer = fetch(address, "/gradio_api/upload", body, "multipart/form-data; boundary=x")
    assert status == 200
    return json.loads(answer)[0]


@pytest.mark.slow
def test_only_what_was_dropped_is_served(base: Path, address: str) -> None:
    copy = upload(address, base / "dropped.png")
    assert fetch(address, f"/gradio_api/file={copy}") == (200, (base / "dropped.png").read_bytes())
    (base / "link.png").symlink_to(base / "gallery" / "s0.jpg")
    up = "/".join([".."] * 12)
    for path in (
        base / "gallery" / "s0.jpg",  # pictures of the index are drawn, not served as files
        base / "index" / "people.sqlite",
        base / "cfg.yaml",
        base / "link.png",
        ROOT / "README.md",
        "README.md",
        "/etc/hostname",
        f"{Path(copy).parent}/{up}{base}/cfg.yaml",
        f"{Path(copy).parent}/{up}{base}/cfg.yaml".replace("..", "%2e%2e"),
        f"{Path(copy).parents[1]}",
        f"file://{base}/cfg.yaml",
        "http://192.0.2.1/a.png",
    ):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/"):
            status, _ = fetch(address, f"{route}{path}")
            assert status >= 400, (route, path)


@pytest.mark.slow
def test_no_file_of_the_machine_is_looked_at(base: Path, address: str) -> None:
    """Requests that do not come from the page may name uploaded files only."""
    ends = {}
    copy = upload(address, base / "dropped.png")
    for path in (copy, str(base / "gallery" / "s0.jpg"), "http://192.0.2.1/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        query = {"data": [file], "fn_index": 0, "session_hash": f"session{len(ends)}"}
        fetch(address, "/gradio_api/queue/join", json.dumps(query).encode())
        said = fetch(address, f"/gradio_api/queue/data?session_hash={query['session_hash']}")[1]
        events = [json.loads(line[6:]) for line in said.decode().splitlines() if line]
        ends[path] = [e["success"] for e in events if e["msg"] == "process_completed"]
    assert list(ends.values()) == [[True], [False], [False]]


@pytest.mark.slow
def test_no_file_remains_of_an_answer_that_is_written_at_the_end(base: Path) -> None:
    code = """
import time
from PIL import Image
from tools import app
save = Image.Image.save
def slow(*args, **options):
    print("saving", flush=True)
    time.sleep(3)
    save(*args, **options)
Image.Image.save = slow
app.run_main(app.main)
"""
    (base / "temporary").mkdir(exist_ok=True)
    before = set((base / "temporary").glob("person_search_*"))
    with running(base, ["-c", code]) as (process, line):
        address = line.split()[0]
        file = {"path": upload(address, base / "dropped.png"), "meta": {"_type": "gradio.FileData"}}
        query = {"data": [file], "fn_index": 0, "session_hash": "session"}
        fetch(address, "/gradio_api/queue/join", json.dumps(query).encode())
        assert process.stdout.readline() == "saving\n"
    assert set((base / "temporary").glob("person_search_*")) == before


@pytest.mark.slow
def test_other_names_and_origins_are_refused(base: Path, address: str) -> None:
    copy = upload(address, base / "dropped.png")
    for path in ("/", f"/gradio_api/file={copy}", "/gradio_api/upload", "/config"):
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            request = urllib.request.Request(address + path, headers=headers)
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, timeout=PATIENCE)
            assert error.value.code == 403
            assert not any("access-control" in name.lower() for name in error.value.headers)
    own = urllib.request.Request(address + "/config", headers={"Origin": address})
    with urllib.request.urlopen(own, timeout=PATIENCE) as response:
        assert response.status == 200
        assert not any("access-control" in name.lower() for name in response.headers)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_this_machine_alone_reaches_it(address: str) -> None:
    port = f"{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[1].endswith(f":{port}") and row[3] == "0A"}
    assert listening == {f"0100007F:{port}"}
    assert ":" + port not in Path("/proc/net/tcp6").read_text()
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        assert "default-src 'self'" in response.headers["content-security-policy"]


# --- in a browser ---


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--window-size=1500,1150",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.implicitly_wait(PATIENCE)
    yield browser
    browser.quit()


class Visit:
    """A visit to the page in a browser."""

    def __init__(self, browser, address: str):
        self.browser = browser
        browser.get(address)

    def find(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def drop(self, path: Path) -> None:
        self.find("#dropped input[type=file]")[0].send_keys(str(path))

    def read(self, selector: str, words: str) -> str:
        """Return the text of an element when it contains `words`."""
        from selenium.webdriver.support.ui import WebDriverWait

        def text(browser) -> str:
            there = "return document.querySelector(arguments[0])?.innerText ?? ''"
            said = browser.execute_script(there, selector)
            return said if words in said else ""

        return WebDriverWait(self.browser, PATIENCE).until(text)

    def click(self, place: tuple[float, float]) -> None:
        """Click on a position of the picture."""
        from selenium.webdriver import ActionChains

        picture = self.find("#people img")[0]
        width = self.browser.execute_script("return arguments[0].naturalWidth", picture)
        shown = picture.size["width"] / width
        middle = picture.size["width"] / 2, picture.size["height"] / 2
        x, y = (round(p * shown - m) for p, m in zip(place, middle))
        ActionChains(self.browser).move_to_element_with_offset(picture, x, y).click().perform()

    def press(self, element) -> None:
        """Click on an element as soon as no message of the page covers it."""
        from selenium.common.exceptions import ElementClickInterceptedException
        from selenium.webdriver.support.ui import WebDriverWait

        covered = [ElementClickInterceptedException]
        wait = WebDriverWait(self.browser, PATIENCE, ignored_exceptions=covered)
        wait.until(lambda _: element.click() or True)

    def write(self, field: str, words: str, button: str) -> None:
        """Write into a field and press a button."""
        place = self.find(f"{field} input, {field} textarea")[0]
        place.clear()
        place.send_keys(words)
        self.press(self.find(button)[0])

    def show_people(self, count: int) -> None:
        """Open the tab People, which shows this many."""
        self.press(self.find("#people_tab-button")[0])
        self.read("#persons_message", f"{count} people")
        assert not self.find("#message")[0].is_displayed()  # the tab Search

    def choose_person(self, title: str) -> None:
        """Click on the person with this number and name."""
        shown = self.find("#persons .thumbnail-lg")
        titles = [one.text.splitlines()[0] for one in shown]
        self.press(shown[titles.index(title)])
        self.read("#timeline", f"Person {title}:")

    def requests(self) -> set[str]:
        """Return the addresses of all requests except those of Chromium itself."""
        said = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        sent = [one for one in said if one["method"] == "Network.requestWillBeSent"]
        urls = {one["params"]["request"]["url"] for one in sent}
        return {url for url in urls if not url.startswith(("chrome:", "data:", "blob:"))}


@pytest.mark.slow
def test_click_a_person_and_see_the_right_first_match(base, address, browser, tmp_path) -> None:
    controller = make_controller(base)
    query = controller._people_on(base / "dropped.png")
    person, place = find_their_own_best_match(controller, query)
    visit = Visit(browser, address)
    visit.drop(base / "dropped.png")
    assert f"{len(query.boxes)} people found" in visit.read("#message", "found")
    visit.click(place)
    visit.read("#message", f"Person {person + 1}: the 12 most similar")
    wanted = controller.searcher.embed(query.path, query.boxes[person : person + 1])
    expected = controller.searcher.search(wanted, controller.index, 12)
    captions = visit.browser.execute_script(
        "return [...document.querySelectorAll('#matches .caption-label')].map(e => e.innerText)"
    )
    assert [caption.split()[:3] for caption in captions] == [
        [f"#{rank}", f"{match.similarity:.2f}", match.person.path.name]
        for rank, match in enumerate(expected, 1)
    ]
    assert captions[0].split()[2] == "s1.png"
    of_video = next(i for i, match in enumerate(expected) if match.span is not None)
    first, last = expected[of_video].span
    times = f"0:{first:04.1f} – 0:{last:04.1f}" if first != last else f"0:{first:04.1f}"
    assert captions[of_video].endswith(times)
    visit.find("#matches .thumbnail-lg")[of_video].click()
    assert "walk.mp4" in visit.read("#scenes", "walk.mp4")
    assert all(url.startswith(address) for url in visit.requests())
    browser.save_screenshot(str(tmp_path / "app.png"))
    assert len(Image.open(tmp_path / "app.png").convert("RGB").getcolors(1 << 24)) > 1000


def find_their_own_best_match(
    controller: app.AppController, query: app.QueryPicture
) -> tuple[int, tuple]:
    """Return a person whose best match is this person in the index, and where to click on them."""
    for person in range(len(query.boxes)):
        place = middle(query, person)
        wanted = controller.searcher.embed(query.path, query.boxes[person : person + 1])
        best = controller.searcher.search(wanted, controller.index, 1)[0].person
        own = best.path.name == "s1.png" and best.box == pytest.approx(query.boxes[person].tolist())
        if own and query.person_at(*place) == person:
            return person, place
    raise AssertionError("no such person; choose another seed for the pictures")


@pytest.mark.slow
def test_people_are_named_merged_and_split_in_the_page(base, address, browser) -> None:
    people = open_index(base / "index").people
    found, identities = read_tracklets(people), open_identities(base / "index", people)
    identify(identities, found, 2.0)  # nobody is joined
    first, second, *others = identities.names()
    visit = Visit(browser, address)
    visit.show_people(2 + len(others))
    visit.choose_person(f"{first}")
    visit.write("#person_name", "Otto", "#rename")
    visit.read("#persons_message", "Renamed")
    visit.write("#other", f"{second}", "#merge")
    visit.read("#persons_message", f"Merged: person {first}")
    visit.read("#timeline", "Otto: 2 tracklets")
    identify(identities, found, 2.0)
    assert identities.names() == {first: "Otto"} | dict.fromkeys(others, "")
    visit = Visit(browser, address)
    visit.show_people(1 + len(others))
    visit.choose_person(f"{first} Otto")
    visit.press(visit.find("#tracklets .thumbnail-lg")[1])
    assert visit.find("#tracklet img")
    visit.press(visit.find("#split")[0])
    visit.read("#persons_message", "Split off: person")
    identify(identities, found, -2.0)  # everyone is joined who may be
    ((one, other),) = identities.known_apart()
    assert one == first and identities.names().keys() >= {one, other}
    assert all(url.startswith(address) for url in visit.requests())


@pytest.mark.slow
def test_bad_input_is_a_message_in_the_page(base, address, browser) -> None:
    visit = Visit(browser, address)
    visit.drop(base / "words.txt")
    said = visit.read("#message", "words.txt")
    assert said.startswith("words.txt: ") and "\n" not in said.strip()
    visit = Visit(browser, address)
    visit.drop(base / "half <b>.jpg")
    assert visit.read("#message", "half b.jpg: damaged image")
    visit = Visit(browser, address)
    visit.drop(base / "query.jpg")
    visit.read("#message", "people found")
    visit.click((1, 1))
    visit.read("#message", "Nobody was found at this place")


def test_the_advice_contains_the_thresholds_of_an_evaluation() -> None:
    assert "%" not in app.advice(None)
    assert "5% at 0.62, 10% at 0.50" in app.advice({"0.05": 0.62, "0.1": 0.5})

"""The app as its visitors meet it, in a real browser, and what it serves and says besides."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from configs.defaults import load_cfg
from engine.index.gallery_index import open_index
from engine.search.searcher import Searcher, to_pixels
from tests.crowds import make_world, moving, noise
from tests.videos import write_video
from tools import app, index_gallery
from utils.errors import run_main

ROOT = Path(__file__).parent.parent
PATIENCE = 120  # seconds, for a page or a process
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a video, their index, and files to drop."""
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


def make_desk(base: Path, ckpt: str = "everyone.pth") -> app.AppController:
    searcher = Searcher.load(load_cfg(str(base / "cfg.yaml")), base / ckpt)
    return app.AppController(searcher, open_index(base / "index"), 12)


# --- what the page answers, without a browser ---


def test_a_click_chooses_the_smallest_box_there() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40], [10, 10, 20, 20], [50, 0, 60, 40]])
    asked = app.QueryPicture(torch.zeros(3, 50, 100, dtype=torch.uint8), boxes)
    scale = asked.drawn().width / 100
    places = {(5, 5): 0, (15, 15): 1, (55, 30): 2, (45, 5): None, (15, 45): None}
    for (x, y), person in places.items():
        assert asked.person_at(scale * x, scale * y) == person


@pytest.mark.slow
def test_answers_in_words(base: Path) -> None:
    desk = make_desk(base)
    assert desk.look(None) == (None, None, "", [], [])
    asked, _, said, _, _ = desk.look(str(base / "query.jpg"))
    assert f"{len(asked.boxes)} people found" in said
    assert "Click on a person first" in desk.search(asked, 0)[2]
    assert "Nobody was found at this place" in desk.choose(asked, 0, (-5, -5))[2]
    chosen, drawn, said, matches, scenes = desk.choose(asked, 0, middle(asked, 0))
    assert f"Person {chosen.person + 1}: the 12 most similar of " in said
    assert (len(matches), len(scenes), drawn.size) == (12, 12, (720, 480))
    assert "Not present: nobody of " in desk.search(chosen, 1)[2]
    assert "Nobody found" in make_desk(base, "nobody.pth").look(str(base / "query.jpg"))[2]


def test_a_picture_that_is_gone_is_grey(base: Path, tmp_path: Path) -> None:
    desk = make_desk(base)
    asked = desk.look(str(base / "gallery" / "s1.png"))[0]
    aside = shutil.move(base / "gallery" / "s1.png", tmp_path)
    try:
        *_, scenes = desk.choose(asked, 0, middle(asked, 0))
    finally:
        shutil.move(aside, base / "gallery")
    assert len(scenes) == 12
    grey = [caption for picture, caption in scenes if picture.getpixel((0, 0)) == (128, 128, 128)]
    assert grey and all(caption.endswith("s1.png") for caption in grey)


def middle(asked: app.QueryPicture, person: int) -> tuple[float, float]:
    x1, y1, x2, y2 = (asked.boxes[person] * asked.drawn().width / asked.pixels.shape[2]).tolist()
    return (x1 + x2) / 2, (y1 + y2) / 2


def test_bad_arguments_are_one_line(base: Path, program) -> None:
    other = program(app.main, *network(base, "other.pth"), "--index", base / "index")
    none = program(app.main, *network(base), "--index", base / "none")
    for (code, _, err), said in ((other, "other weights"), (none, "no index there")):
        assert (code, err.count("\n")) == (2, 1)
        assert said in err


def test_where_it_cannot_be_served(program, base: Path) -> None:
    """A port in use, one that there is not, addresses that are not this machine's or not IPv4."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = {("127.0.0.1", port): "in use", ("127.0.0.1", 70000): "port must be 0-65535"}
        places |= {("203.0.113.9", port): "requested address", ("::1", port): ""}
        for (host, number), why in places.items():
            where = ("--host", host, "--port", number)
            code, _, err = program(app.main, *network(base), "--index", base / "index", *where)
            assert (code, err.count("\n")) == (2, 1)
            assert f"--host {host} --port {number}: cannot be served at (" in err and why in err


def test_a_name_of_this_machine_is_its_address() -> None:
    assert app.address_of("localhost", 0) == "127.0.0.1"


@pytest.mark.slow
def test_no_connection_leaves_the_machine() -> None:
    code = """
import socket
from tools import app
app.stay_home("192.0.2.7")
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
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    events = {"getaddrinfo": "example.org", "gethostbyname": "example.org"}
    events |= {"connect": "192.0.2.1", "sendto": "192.0.2.1"}
    said = [f"socket.{event}: {host} is not this machine" for event, host in events.items()]
    assert ran.stdout.splitlines() == [*said, "home"], ran.stderr


# --- a running app ---


@pytest.fixture(scope="module")
def address(base: Path) -> Iterator[str]:
    """Where `python -m tools.app` serves."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tools.app", *network(base), "--index", base / "index"]
    (base / "temporary").mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(base / "temporary")}
    process = subprocess.Popen(
        [*map(str, command), "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port} ")
        yield line.split()[0]
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 143
        assert list((base / "temporary").glob("person_search_*")) == []  # nothing stays


def fetch(address: str, path: str, data: bytes | None = None, kind: str = "application/json"):
    """(status, content)"""
    request = urllib.request.Request(address + path, data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address: str, path: Path) -> str:
    """The server's copy of a dropped file."""
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
        base / "gallery" / "s0.jpg",  # the index's own pictures are shown, never handed out
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
    """Who speaks to the server without the page may name dropped files alone."""
    ends = {}
    copy = upload(address, base / "dropped.png")
    for path in (copy, str(base / "gallery" / "s0.jpg"), "http://192.0.2.1/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [file], "fn_index": 0, "session_hash": f"session{len(ends)}"}
        fetch(address, "/gradio_api/queue/join", json.dumps(asked).encode())
        said = fetch(address, f"/gradio_api/queue/data?session_hash={asked['session_hash']}")[1]
        events = [json.loads(line[6:]) for line in said.decode().splitlines() if line]
        ends[path] = [e["success"] for e in events if e["msg"] == "process_completed"]
    assert list(ends.values()) == [[True], [False], [False]]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="tells by Linux's /proc")
def test_this_machine_alone_reaches_it(address: str) -> None:
    port = f"{int(address.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[1].endswith(f":{port}") and row[3] == "0A"}
    assert listening == {f"0100007F:{port}"}
    assert ":" + port not in Path("/proc/net/tcp6").read_text()
    request = urllib.request.urlopen(address)
    assert "default-src 'self'" in request.headers["content-security-policy"]


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
    """A visitor's eyes and hands."""

    def __init__(self, browser, address: str):
        self.browser = browser
        browser.get(address)

    def find(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def drop(self, path: Path) -> None:
        self.find("#dropped input[type=file]")[0].send_keys(str(path))

    def read(self, selector: str, words: str) -> str:
        """The text there once it holds these words."""
        from selenium.webdriver.support.ui import WebDriverWait

        def text(browser) -> str:
            there = "return document.querySelector(arguments[0])?.innerText ?? ''"
            said = browser.execute_script(there, selector)
            return said if words in said else ""

        return WebDriverWait(self.browser, PATIENCE).until(text)

    def click(self, place: tuple[float, float]) -> None:
        """On the picture, at this place of it."""
        from selenium.webdriver import ActionChains

        picture = self.find("#people img")[0]
        width = self.browser.execute_script("return arguments[0].naturalWidth", picture)
        shown = picture.size["width"] / width
        middle = picture.size["width"] / 2, picture.size["height"] / 2
        x, y = (round(p * shown - m) for p, m in zip(place, middle))
        ActionChains(self.browser).move_to_element_with_offset(picture, x, y).click().perform()

    def requests(self) -> set[str]:
        """Every address that was asked for something, but Chromium's own."""
        said = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        sent = [one for one in said if one["method"] == "Network.requestWillBeSent"]
        urls = {one["params"]["request"]["url"] for one in sent}
        return {url for url in urls if not url.startswith(("chrome:", "data:", "blob:"))}


@pytest.mark.slow
def test_click_a_person_and_see_the_right_first_match(base, address, browser, tmp_path) -> None:
    desk = make_desk(base)
    asked = desk._people_on(str(base / "dropped.png"))
    person, place = whoever_is_her_own_best_match(desk, asked)
    visit = Visit(browser, address)
    visit.drop(base / "dropped.png")
    assert f"{len(asked.boxes)} people found" in visit.read("#said", "found")
    visit.click(place)
    visit.read("#said", f"Person {person + 1}: the 12 most similar")
    wanted = desk.searcher.embed(asked.pixels, asked.boxes[person : person + 1])
    expected = desk.searcher.search(wanted, desk.index, 12)
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


def whoever_is_her_own_best_match(
    desk: app.AppController, asked: app.QueryPicture
) -> tuple[int, tuple]:
    for person in range(len(asked.boxes)):
        place = middle(asked, person)
        wanted = desk.searcher.embed(asked.pixels, asked.boxes[person : person + 1])
        best = desk.searcher.search(wanted, desk.index, 1)[0].person
        own = best.path.name == "s1.png" and best.box == pytest.approx(asked.boxes[person].tolist())
        if own and asked.person_at(*place) == person:
            return person, place
    raise AssertionError("nobody is; another seed for the pictures")


@pytest.mark.slow
def test_bad_input_is_a_message_in_the_page(base, address, browser) -> None:
    visit = Visit(browser, address)
    visit.drop(base / "words.txt")
    said = visit.read("#said", "words.txt")
    assert said.strip() == "words.txt: damaged image (none that Pillow knows)"
    visit = Visit(browser, address)
    visit.drop(base / "half <b>.jpg")
    assert visit.read("#said", "half b.jpg: damaged image")
    visit = Visit(browser, address)
    visit.drop(base / "query.jpg")
    visit.read("#said", "people found")
    visit.click((1, 1))
    visit.read("#said", "Nobody was found at this place")


def test_what_the_page_tells_about_thresholds() -> None:
    assert "however similar" in app.advice(None)
    assert "5% from 0.62 on, 10% from 0.50 on" in app.advice({"0.05": 0.62, "0.1": 0.5})
    assert to_pixels(noise((4, 3), 0)).shape == (3, 3, 4)

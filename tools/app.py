"""A page in the browser: drop a picture, click on a person, see where she is in an index.

    python -m tools.app --cfg F --ckpt F --index INDEX [--port 7860]

This machine alone reaches it unless --host says otherwise. It shows the index's pictures with their
matches, and what was dropped, for as long as it runs; it serves no other file and asks nothing of
the network.
"""

import argparse
import html
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from yacs.config import CfgNode

from engine.checkpoint import Checkpoint
from engine.default_network import network_of
from engine.evaluation.records import thresholds_of
from engine.index.gallery_index import GalleryIndex, Match, open_index
from engine.search.presentation import QUERY, RANKED, read_scene
from engine.search.searcher import Searcher, to_pixels
from utils.drawing import PLAIN, cut_out, draw_boxes
from utils.errors import UserError, reason_of, run_main
from utils.memory import keep_freed_memory
from utils.names import printable
from utils.optional import optional
from utils.pages import clock

REQUIREMENTS = "requirements-app.txt"
ASKED_SIDE, SCENE_SIDE = 720, 1000  # pixels, the longer sides of drawn pictures
CUT_OUT = (210, 280)  # width and height of a person, pixels
KEPT = 3600  # seconds that what a visitor dropped, and was shown, lies on the disk
LOCAL = {"", "localhost", "127.0.0.1", "::1"}
CSS = """
.bad { color: #b00020; font-weight: 600 }
#people img { cursor: crosshair }
#least .info, #least span { color: var(--body-text-color) }
#matches .grid-wrap { padding-top: 2.4em; height: auto; max-height: none }
#matches .thumbnail-lg { aspect-ratio: 3 / 5 }
#matches .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; border-radius: 0; border: 0; padding: 2px 4px;
    white-space: pre-line; overflow-wrap: anywhere; text-align: center; line-height: 1.3;
}
"""
# The browser asks nobody else either, whatever a component of the page would like to load.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


@dataclass(frozen=True)
class QueryPicture:
    """What a visitor looks at: the picture dropped, [3, H, W] uint8, and its people's boxes [n, 4];
    person: the place of the one clicked on, with her embedding wanted [1, D]."""

    pixels: Tensor
    boxes: Tensor
    person: int | None = None
    wanted: Tensor | None = None

    def drawn(self) -> Image.Image:
        names = [str(number) for number in range(1, len(self.boxes) + 1)]
        styles = [QUERY if i == self.person else PLAIN for i in range(len(self.boxes))]
        return draw_boxes(to_pil_image(self.pixels), self.boxes, names, styles, ASKED_SIDE)

    def person_at(self, x: float, y: float) -> int | None:
        """Of the people at this place of the drawn picture, the one with the smallest box."""
        scale = max(self.pixels.shape[1:]) / ASKED_SIDE
        x1, y1, x2, y2 = self.boxes.unbind(1)
        there = (x1 <= x * scale) & (x * scale <= x2) & (y1 <= y * scale) & (y * scale <= y2)
        sizes = ((x2 - x1) * (y2 - y1)).masked_fill(~there, torch.inf)
        return int(sizes.argmin()) if there.any() else None


class AppController:
    """What the page asks for: each answer is (asked, drawn picture, words, matches, scenes)."""

    def __init__(self, searcher: Searcher, index: GalleryIndex, top: int):
        self.searcher = searcher
        self.index = index
        self.top = top

    def look(self, path: str | None) -> tuple:
        """A picture has been dropped: who is on it?"""
        if path is None:
            return None, None, "", [], []
        try:
            asked = self._people_on(path)
        except UserError as error:
            said = str(error).replace(path, printable(Path(path).name))
            return None, None, words(said, "bad"), [], []
        many = len(asked.boxes)
        said = f"{many} {'people' if many > 1 else 'person'} found: click on one."
        if not many:
            said = "Nobody found in this picture."
        return asked, asked.drawn(), words(said), [], []

    def _people_on(self, path: str) -> QueryPicture:
        pixels = to_pixels(path)
        return QueryPicture(pixels, self.searcher.detect([pixels])[0].boxes)

    def choose(self, asked: QueryPicture | None, least: float, place: tuple[float, float]) -> tuple:
        """The picture has been clicked on: where else is the person there?"""
        if asked is None:
            return self.look(None)
        person = asked.person_at(*place)
        if person is None:
            said = "Nobody was found at this place: click into one of the boxes."
            return asked, asked.drawn(), words(said, "bad"), [], []
        wanted = self.searcher.embed(asked.pixels, asked.boxes[person : person + 1])
        return self.search(replace(asked, person=person, wanted=wanted), least)

    def search(self, asked: QueryPicture | None, least: float) -> tuple:
        """Where is the person with a similarity of `least` or more?"""
        if asked is None or asked.person is None or asked.wanted is None:
            return asked, asked and asked.drawn(), words("Click on a person first."), [], []
        try:
            found = self.searcher.search(asked.wanted, self.index, self.top, least)
            everyone = f"{self.index.people.count():,} people"
        except UserError as error:
            return asked, asked.drawn(), words(str(error), "bad"), [], []
        said = f"Person {asked.person + 1}: the {len(found)} most similar of {everyone}."
        if not found:
            said = f"Not present: nobody of {everyone} is similar to person {asked.person + 1} by "
            said += f"{least:.2f} or more."
        matches, scenes = [], []
        for rank, match in enumerate(found, 1):
            picture = read_scene(match.person.path, match.person.time)
            title = f"#{rank}   {match.similarity:.2f}"
            person = cut_out(picture, match.person.box, CUT_OUT)
            box = draw_boxes(picture, [match.person.box], [title], RANKED, SCENE_SIDE)
            matches.append((person, f"{title}\n{where(match)}"))
            scenes.append((box, f"{title}   {where(match)}"))
        return asked, asked.drawn(), words(said), matches, scenes


def words(said: str, kind: str = "good") -> str:
    return f'<p class="{kind}">{html.escape(said)}</p>'


def where(match: Match) -> str:
    """The match's file and, in a video, from when to when she appears."""
    name = printable(match.person.path.name)
    if match.span is None:
        return name
    first, last = map(clock, match.span)
    return f"{name}   {first} – {last}" if first != last else f"{name}   {first}"


def advice(thresholds: dict[str, float] | None) -> str:
    """What an evaluation says about similarities, in words."""
    if not thresholds:
        return "0 shows the best matches, however similar"
    shares = [f"{float(rate):.0%} from {least:.2f} on" for rate, least in thresholds.items()]
    return f"false alarms, by the network's evaluation: {', '.join(shares)} of queries"


def page(desk: AppController, hint: str) -> Any:
    """The page: Gradio's Blocks."""
    gr = optional("gradio", "tools.app", REQUIREMENTS)
    with gr.Blocks(
        title="Person search", analytics_enabled=False, fill_width=True, delete_cache=(600, KEPT)
    ) as blocks:
        asked = gr.State(time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=2):
                dropped = gr.File(label="A picture: drop it or choose it", elem_id="dropped")
                people = gr.Image(
                    label="Click on a person", interactive=False, buttons=[], elem_id="people"
                )
                said = gr.HTML(elem_id="said")
                least = gr.Slider(
                    0, 1, 0, step=0.01, label="Similarity of at least", info=hint, elem_id="least"
                )
            with gr.Column(scale=3):
                matches = gr.Gallery(
                    label="Best matches",
                    columns=6,
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="matches",
                )
                scenes = gr.Gallery(
                    label="Where they are",
                    height=520,
                    object_fit="contain",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="scenes",
                )
        answer = [asked, people, said, matches, scenes]
        one_by_one = {"concurrency_id": "desk", "concurrency_limit": 1, "api_visibility": "private"}

        def choose(asked: QueryPicture | None, least: float, click: gr.SelectData) -> tuple:
            return first_scene(desk.choose(asked, least, click.index))

        def search(asked: QueryPicture | None, least: float) -> tuple:
            return first_scene(desk.search(asked, least))

        def first_scene(answer: tuple) -> tuple:
            *others, scenes = answer
            return *others, gr.Gallery(scenes, selected_index=0 if scenes else None)

        def show(click: gr.SelectData):
            return gr.Gallery(selected_index=click.index)

        dropped.change(desk.look, dropped, answer, **one_by_one)
        people.select(choose, [asked, least], answer, **one_by_one)
        least.release(search, [asked, least], answer, **one_by_one)
        matches.select(show, None, scenes, api_visibility="private")
    return blocks


def address_of(host: str, port: int) -> str:
    """The IPv4 address of this machine that `host` names, free at `port`; UserError where there is
    none."""
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return trial.getsockname()[0]
    except (OSError, OverflowError) as error:  # OverflowError: there is no such port
        raise UserError(
            f"--host {host} --port {port}: cannot be served at ({reason_of(error)})"
        ) from None


def stay_home(address: str) -> None:
    """From now on this process connects to itself alone: to the address that it serves, and within
    the machine. Whatever a library would like to report, look up or fetch fails."""

    def refuse(event: str, args: tuple) -> None:
        if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
            host = args[1][0]
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = args[0]
        else:
            return
        if not _own(host, address):
            raise PermissionError(f"{event}: {host} is not this machine")

    sys.addaudithook(refuse)


def _own(host: str | bytes | None, address: str) -> bool:
    """Is this host this machine, or the address of it that is served?"""
    name = host.decode() if isinstance(host, bytes) else host or ""
    try:
        own = name in {*LOCAL, address}
        return own or ip_address(name).is_loopback or ip_address(name).is_unspecified
    except ValueError:
        return False


class Headers:
    """Around the app: tells browsers to load nothing from elsewhere (ASGI)."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def tell(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", POLICY.encode()))
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


def serve(blocks: Any, address: str, port: int) -> None:
    """Until it is interrupted. The files that the page shows lie in a folder that goes with it."""
    gr = optional("gradio", "tools.app", REQUIREMENTS)
    middleware = optional("starlette.middleware", "tools.app", REQUIREMENTS).Middleware
    blocks.launch(
        server_name=address,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        allowed_paths=[],
        max_file_size="100mb",
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=CSS,
        app_kwargs={"middleware": [middleware(Headers)]},
    )
    print(f"http://{address}:{port}   (Ctrl-C ends it)", flush=True)
    blocks.block_thread()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", metavar="FILE", help="YAML config (default: the one in --ckpt)")
    parser.add_argument(
        "--ckpt",
        metavar="FILE",
        help="its checkpoint (default: weights/person_search_small.safetensors, for photographs)",
    )
    parser.add_argument(
        "--index", required=True, type=Path, metavar="FOLDER", help="what to search"
    )
    parser.add_argument("--top", type=int, default=12, metavar="N", help="matches shown")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every machine may see it")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="config values, for example DEVICE cpu"
    )
    return parser.parse_intermixed_args()


def make_desk(args: argparse.Namespace, cfg: CfgNode, checkpoint: Checkpoint) -> AppController:
    searcher = Searcher.load(cfg, checkpoint)
    keep_freed_memory(searcher.device.type)
    return AppController(searcher, open_index(args.index, searcher.origin), args.top)


def main() -> None:
    args = parse_args()
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1")
    address = address_of(args.host, args.port)
    cfg, checkpoint = network_of(args.cfg, args.ckpt, args.overrides)
    desk, thresholds = make_desk(args, cfg, checkpoint), thresholds_of(checkpoint)
    del checkpoint  # the network has its own copy of the weights
    stay_home(address)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="person_search_") as folder:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            os.environ[name] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        serve(page(desk, advice(thresholds)), address, args.port)


if __name__ == "__main__":
    run_main(main)

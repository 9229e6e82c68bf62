"""Web page for searching an index: drop a picture, click on a person, see the matches.

    python -m tools.app --cfg F --ckpt F --index INDEX [--port 7860]

Only this machine can reach the page, unless --host is given. The page shows the pictures of matches
and dropped pictures while the program runs; it serves no other file and connects to nothing.
"""

import argparse
import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from yacs.config import CfgNode

from engine.checkpoint import Checkpoint
from engine.default_network import add_network_options, network_of
from engine.evaluation.records import thresholds_of
from engine.index.gallery_index import (
    GalleryIndex,
    folder_of,
    index_place,
    open_index,
    stale_sources,
)
from engine.index.records import Match, check_indexed_cameras
from engine.search.arguments import filter_of_texts
from engine.search.presentation import QUERY, RANKED, name_of, read_scene
from engine.search.searcher import Searcher, to_pixels
from tools.web.persons import CSS as PERSONS_CSS
from tools.web.persons import PEOPLE_GALLERY, PersonsController, message, persons_tab
from tools.web.server import REQUIREMENTS, address_of, names_of, no_connections, serve
from utils.arguments import add_overrides, nonempty, program_parser
from utils.drawing import PLAIN, cut_out, draw_boxes
from utils.errors import UserError, run_main
from utils.memory import keep_freed_memory
from utils.names import printable
from utils.optional import optional
from utils.pages import period

QUERY_SIDE, SCENE_SIDE = 720, 1000  # longer sides of drawn pictures, pixels
CUT_OUT = (210, 280)  # width and height of a crop, pixels
KEPT = 3600  # seconds after which dropped and drawn files are deleted
FILTERS = {"Cameras": "hall, door", "After": "2026-01-31T08:00", "Before": "2026-01-31"}
CSS = """
.bad { color: #b00020; font-weight: 600 }
#people img { cursor: crosshair }
#threshold .info, #threshold span { color: var(--body-text-color) }
#matches .grid-wrap { padding-top: 2.4em; height: auto; max-height: none }
#matches .thumbnail-lg { aspect-ratio: 3 / 5 }
#matches .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; border-radius: 0; border: 0; padding: 2px 4px;
    white-space: pre-line; overflow-wrap: anywhere; text-align: center; line-height: 1.3;
}
"""


@dataclass(frozen=True)
class QueryPicture:
    """The state of a visit: the dropped picture and its people.

    Attributes:
        path: the dropped file.
        small: the picture, resized to a longer side of QUERY_SIDE pixels.
        scale: pixels of the picture per pixel of `small`.
        boxes: [n, 4] in pixels of the picture.
        person: position of the chosen person.
        query_embeddings: [1, D] of that person.
    """

    path: Path
    small: Image.Image
    scale: float
    boxes: Tensor
    person: int | None = None
    query_embeddings: Tensor | None = None

    def drawn(self) -> Image.Image:
        """Draw the people with numbers, counted from 1."""
        names = [str(number) for number in range(1, len(self.boxes) + 1)]
        styles = [QUERY if i == self.person else PLAIN for i in range(len(self.boxes))]
        return draw_boxes(self.small, self.boxes / self.scale, names, styles, QUERY_SIDE)

    def person_at(self, x: float, y: float) -> int | None:
        """Return the position of the smallest box that contains a point of the drawn picture."""
        x1, y1, x2, y2 = (self.boxes / self.scale).unbind(1)
        inside = (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
        sizes = ((x2 - x1) * (y2 - y1)).masked_fill(~inside, torch.inf)
        return int(sizes.argmin()) if inside.any() else None


class AppController:
    """Responses of the page, each (state, drawn picture, message, matches, pictures of matches).

    Args:
        open_: opens the index, which is opened again when its files have been replaced.
        top: number of matches.
        folder: of the index, which contains the pictures of cameras.
    """

    def __init__(
        self,
        searcher: Searcher,
        open_: Callable[[], GalleryIndex],
        top: int,
        folder: Path | None = None,
    ):
        self.searcher = searcher
        self.open = open_
        self.index = open_()
        self.top = top
        self.folder = folder

    def detect(self, path: str | None) -> tuple:
        """Respond to a dropped picture: detect the people in it."""
        if path is None:
            return None, None, "", [], []
        try:
            query = self._people_on(Path(path))
        except UserError as error:
            shown = str(error).replace(path, printable(Path(path).name))
            return None, None, message(shown, "bad"), [], []
        many = len(query.boxes)
        shown = f"{many} {'people' if many > 1 else 'person'} found: click on one."
        if not many:
            shown = "Nobody found in this picture."
        return query, query.drawn(), message(shown), [], []

    def _people_on(self, path: Path) -> QueryPicture:
        pixels = to_pixels(path, self.searcher.max_pixels)
        boxes = self.searcher.detect([pixels])[0].boxes
        scale = max(pixels.shape[1:]) / QUERY_SIDE
        height, width = (max(round(side / scale), 1) for side in pixels.shape[1:])
        small = to_pil_image(pixels).resize((width, height), Image.Resampling.LANCZOS)
        return QueryPicture(path, small, scale, boxes)

    def choose(
        self,
        query: QueryPicture | None,
        min_similarity: float,
        place: tuple[float, float],
        filters: Sequence[str] = (),
    ) -> tuple:
        """Respond to a click on the drawn picture: search for the person there."""
        if query is None:
            return self.detect(None)
        person = query.person_at(*place)
        if person is None:
            shown = "Nobody was found at this place: click into one of the boxes."
            return query, query.drawn(), message(shown, "bad"), [], []
        try:
            box = query.boxes[person : person + 1]
            query_embeddings = self.searcher.embed(query.path, box)
        except UserError:
            shown = "This picture is no longer kept: drop it again."
            return query, query.drawn(), message(shown, "bad"), [], []
        return self.search(
            replace(query, person=person, query_embeddings=query_embeddings),
            min_similarity,
            filters,
        )

    def current(self) -> GalleryIndex:
        """Return the index, which is opened again if its files have been replaced."""
        if not self.index.people.is_current():
            self.index = self.open()
        return self.index

    def search(
        self, query: QueryPicture | None, min_similarity: float, filters: Sequence[str] = ()
    ) -> tuple:
        """Respond to a changed threshold or a click: search for the chosen person.

        Args:
            min_similarity: lowest similarity of a match; 0: no limit.
            filters: cameras, separated by commas, and the times after and before.
        """
        if query is None or query.person is None or query.query_embeddings is None:
            return query, query and query.drawn(), message("Click on a person first."), [], []
        try:
            index, person_filter = self.current(), filter_of_texts(*filters)
            check_indexed_cameras(person_filter, index.people.known)
            found = self.searcher.search(
                query.query_embeddings,
                index,
                self.top,
                min_similarity or -torch.inf,
                person_filter=person_filter,
            )
            everyone = f"{self.index.people.count():,} people"
            stale = stale_sources(self.index.people, [match.person.path for match in found])
        except UserError as error:
            return query, query.drawn(), message(str(error), "bad"), [], []
        shown = f"Person {query.person + 1}: the {len(found)} most similar of {everyone}."
        if not found:
            shown = (
                f"Not present: none of {everyone} has a similarity to person {query.person + 1} "
                f"of {min_similarity:.2f} or more."
            )
        if stale:
            shown += f" Files that are missing or have changed since indexing: {len(stale)}."
        matches, scenes = [], []
        for rank, match in enumerate(found, 1):
            picture = read_scene(
                match.person.path, match.person.time, self.folder, self.searcher.max_pixels
            )
            title = f"#{rank}   {match.similarity:.2f}"
            person = cut_out(picture, match.person.box, CUT_OUT)
            box = draw_boxes(picture, [match.person.box], [title], RANKED, SCENE_SIDE)
            remark = f" ({stale[match.person.path]})" if match.person.path in stale else ""
            matches.append((person, f"{title}\n{where(match)}{remark}"))
            scenes.append((box, f"{title}   {where(match)}{remark}"))
        return query, query.drawn(), message(shown), matches, scenes


def where(match: Match) -> str:
    """Return the name of the match's file and, for a video, the first and last second."""
    name = printable(name_of(match.person.path))
    if match.span is None:
        return name
    return f"{name}   {period(*match.span)}"


def advice(thresholds: dict[str, float] | None) -> str:
    """Describe the thresholds of an evaluation."""
    if not thresholds:
        return "0 shows the best matches, however similar"
    shares = [f"{float(rate):.0%} at {value:.2f}" for rate, value in thresholds.items()]
    return f"share of queries with a false alarm in the network's evaluation: {', '.join(shares)}"


def page(controller: AppController, hint: str) -> Any:
    """Build the page, Gradio's Blocks.

    Args:
        hint: text beside the threshold.
    """
    gr = optional("gradio", "tools.app", REQUIREMENTS)
    with (
        gr.Blocks(
            title="Person search",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(600, KEPT),
        ) as blocks,
        gr.Tabs(),
    ):
        search_tab(gr, controller, hint)
        if controller.folder is not None:
            limit = controller.searcher.max_pixels
            persons_tab(gr, PersonsController(controller.current, controller.folder, limit))
    return blocks


def search_tab(gr: Any, controller: AppController, hint: str) -> None:
    """Build the tab of the search within Gradio's Tabs."""
    with gr.Tab("Search", elem_id="search_tab"):
        query = gr.State(time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=2):
                dropped = gr.File(label="Drop or choose a picture", elem_id="dropped")
                people = gr.Image(
                    label="Click on a person", interactive=False, buttons=[], elem_id="people"
                )
                text = gr.HTML(elem_id="message")
                threshold = gr.Slider(
                    0,
                    1,
                    0,
                    step=0.01,
                    label="Similarity of at least",
                    info=hint,
                    elem_id="threshold",
                )
                with gr.Row():
                    filters = [
                        gr.Textbox(label=label, placeholder=example, elem_id=label.lower())
                        for label, example in FILTERS.items()
                    ]
            with gr.Column(scale=3):
                matches, scenes = _result_galleries(gr)
        answer = [query, people, text, matches, scenes]
        one_by_one = {"concurrency_id": "net", "concurrency_limit": 1, "api_visibility": "private"}

        def choose(
            query: QueryPicture | None,
            threshold: float,
            cameras: str,
            after: str,
            before: str,
            click: gr.SelectData,
        ) -> tuple:
            filters = cameras, after, before
            return first_scene(controller.choose(query, threshold, click.index, filters))

        def search(query: QueryPicture | None, threshold: float, *filters: str) -> tuple:
            return first_scene(controller.search(query, threshold, filters))

        def first_scene(answer: tuple) -> tuple:
            *others, scenes = answer
            return *others, gr.Gallery(scenes, selected_index=0 if scenes else None)

        def show(click: gr.SelectData):
            return gr.Gallery(selected_index=click.index)

        dropped.change(controller.detect, dropped, answer, **one_by_one)
        people.select(choose, [query, threshold, *filters], answer, **one_by_one)
        threshold.release(search, [query, threshold, *filters], answer, **one_by_one)
        for box in filters:
            box.submit(search, [query, threshold, *filters], answer, **one_by_one)
        matches.select(show, None, scenes, api_visibility="private")


def _result_galleries(gr: Any) -> tuple[Any, Any]:
    """Build the galleries of the best matches and of their pictures."""
    matches = gr.Gallery(label="Best matches", columns=6, elem_id="matches", **PEOPLE_GALLERY)
    scenes = gr.Gallery(
        label="Pictures of the matches",
        height=520,
        object_fit="contain",
        interactive=False,
        buttons=["fullscreen"],
        elem_id="scenes",
    )
    return matches, scenes


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add_network_options(parser)
    parser.add_argument(
        "--index",
        required=True,
        type=index_place,
        metavar="PLACE",
        help="index to search: folder, FILE.db or http://HOST:PORT[/DATABASE] (Milvus)",
    )
    parser.add_argument(
        "--top", type=int, default=12, metavar="N", help="number of matches (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        type=nonempty,  # an empty one would mean 0.0.0.0
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to serve; 0.0.0.0: every machine can reach it (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="of the page (default: %(default)s)"
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="another name under which the page may be reached, for example through a proxy; may "
        "be repeated (default: this machine's own names)",
    )
    add_overrides(parser, "config values, for example DEVICE cpu")
    return parser.parse_intermixed_args()


def make_controller(
    args: argparse.Namespace, cfg: CfgNode, checkpoint: Checkpoint
) -> AppController:
    searcher = Searcher.load(cfg, checkpoint)
    keep_freed_memory(searcher.device.type)
    return AppController(
        searcher, lambda: open_index(args.index, searcher.origin), args.top, folder_of(args.index)
    )


def main() -> None:
    args = parse_args()
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1")
    if args.port == 0:  # of any free port the page's address would be unknown
        raise UserError("--port 0: expected 1-65535")
    address = address_of(args.host, args.port)
    names_of(args.host, address, args.host_name)
    cfg, checkpoint = network_of(args.cfg, args.ckpt, args.overrides)
    controller, thresholds = make_controller(args, cfg, checkpoint), thresholds_of(checkpoint)
    del checkpoint  # the network has its own copy of the weights
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = tempfile.mkdtemp(prefix="person_search_")
    # At exit, after all threads have ended: one that still answers a request may write to it.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with no_connections(address):
        for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
            os.environ[name] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        blocks = page(controller, advice(thresholds))
        serve(blocks, CSS + PERSONS_CSS, args.host, args.port, args.host_name, Path(folder))


if __name__ == "__main__":
    run_main(main)

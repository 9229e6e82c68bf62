"""Show queries with their ten best matches as one HTML page or PNG sheet.

    python -m tools.show_results --cfg FILE [--show worst] [--count 12] [--out PAGE.html]

Correct matches have a green frame, wrong ones a red frame. The program reads the features that an
evaluation wrote, OUTPUT_DIR/eval_cache.pth, and the dataset's images.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from configs.defaults import load_cfg, take_overrides
from datasets import Scene, load_dataset
from engine.evaluation import metrics
from engine.evaluation.cache import CACHE, load_cache
from engine.evaluation.evaluate import check_settings, context_of
from engine.evaluation.metrics import SEARCH_SCORE
from utils.arguments import add_overrides, converted, nonempty_path, program_parser
from utils.drawing import Color, Style, Tile, contact_sheet, cut_out, draw_boxes, save_picture
from utils.errors import UserError, run_main
from utils.files import check_target, write_text
from utils.media import read_picture
from utils.pages import Figure, Section, css, data_url, page

COUNT, TOP = 12, 10  # default number of queries; matches of each
GREEN, RED, BLUE = (22, 160, 90), (214, 54, 54), (52, 108, 216)
CROP, SCENE = (128, 256), 600  # size of a crop, longer side of a picture; pixels


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="config of the evaluation")
    parser.add_argument(
        "--show",
        choices=("worst", "best", "random"),
        help="queries to show, by average precision (default: worst)",
    )
    parser.add_argument(
        "--count", type=int, metavar="N", help=f"number of queries (default: {COUNT})"
    )
    parser.add_argument(
        "--query",
        nargs="+",
        metavar="N",
        help="show these queries, by their number in results.json",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of --show random (default: 0)")
    parser.add_argument(
        "--out",
        type=nonempty_path,
        metavar="FILE",
        help="HTML or PNG file (default: OUTPUT_DIR/queries.html)",
    )
    add_overrides(
        parser, "config values, for example EVAL_GALLERY_SIZE 50; the first of several sizes counts"
    )
    args = parser.parse_intermixed_args()
    if args.query:
        take_overrides(args, "query")
        args.query = converted(parser, "--query", args.query, int)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        UserError: if a value is out of range, or an option has no effect.
    """
    for option in ("show", "count"):
        if args.query and getattr(args, option) is not None:
            raise UserError(f"--{option}: expected without --query, found both")
    if args.seed is not None and args.show != "random":
        raise UserError("--seed: expected with --show random, found without")
    if args.count is not None and args.count < 1:
        raise UserError(f"--count {args.count}: expected at least 1")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed {args.seed}: expected 0 or more")
    if args.out and args.out.suffix not in (".html", ".png"):
        raise UserError(f"--out {args.out}: expected a name that ends in .html or .png")
    if args.out:
        check_target("--out", args.out, args.out.suffix)


def choose(ap: torch.Tensor, queries: np.ndarray, args: argparse.Namespace) -> list[int]:
    """Choose the queries to show.

    Args:
        ap: [Q] average precision of each query.
        queries: [Q] number of each query in the dataset.

    Returns:
        Positions in the protocol.

    Raises:
        UserError: if --query names a query that the protocol does not have.
    """
    if args.query:
        place = {query: i for i, query in enumerate(queries.tolist())}
        for query in args.query:
            if query not in place:
                raise UserError(
                    f"--query {query}: expected one of the protocol's {len(place)} "
                    f"queries, numbers {min(place)} to {max(place)}"
                )
        return [place[query] for query in args.query]
    if args.show == "random":
        order = np.random.default_rng(args.seed or 0).permutation(len(ap))
    else:
        order = np.argsort(-ap.numpy() if args.show == "best" else ap.numpy(), kind="stable")
    return order[: args.count or COUNT].tolist()


def sections_of(dataset, cache, protocol, cfg, args) -> tuple[str, list[Section]]:
    """Return the page's title and one section for each chosen query with its best matches."""
    data = cache["gallery_dets"], cache["gallery_feats"], torch.stack(cache["query_box_feats"])
    cbgm = context_of(cache, cfg)
    search = metrics.search(*data, protocol, SEARCH_SCORE, cbgm)
    chosen = choose(search["ap"], protocol.queries, args)
    matches = metrics.top_matches(*data, protocol, chosen, TOP, SEARCH_SCORE, cbgm)
    present = np.bincount(protocol.query, minlength=len(protocol.queries))
    sections, limit = [], cfg.INPUT.MAX_PIXELS
    for row, best in zip(chosen, matches):
        number = int(protocol.queries[row])
        query, first = dataset.queries[number], int(search["first_hit"][row])
        hit = f"first correct match at rank {first}" if first else "not found"
        images = "1 image shows" if present[row] == 1 else f"{present[row]} images show"
        asked = figure(dataset.gallery[query.scene], query.box, limit, BLUE, "query")
        found = [
            figure(
                dataset.gallery[match.image],
                match.box.numpy(),
                limit,
                GREEN if match.right else RED,
                f"{rank} · {match.similarity:.2f}",
                match.similarity,
            )
            for rank, match in enumerate(best, 1)
        ]
        details = f"AP {100 * search['ap'][row]:.1f} % · {hit} · {images} this person"
        sections.append(Section(f"Query {number}", details, [asked, *found]))
    kind = "chosen" if args.query else args.show or "worst"
    return (
        f"{protocol.name}{' + CBGM' if cbgm else ''} · mAP {100 * search['mAP']:.2f} % · top-1 "
        f"{100 * search['top1']:.2f} % · {len(sections)} {kind} of {len(search['ap'])} queries"
    ), sections


@functools.lru_cache(maxsize=64)
def read(path: str, upright: bool, max_pixels: int) -> Image.Image:
    return read_picture(path, upright, max_pixels)


def figure(
    scene: Scene,
    box: np.ndarray,
    max_pixels: int,
    color: Color,
    title: str,
    similarity: float | None = None,
) -> Figure:
    """Draw a query or a match.

    Args:
        box: x1 y1 x2 y2 in pixels of the scene.
    """
    picture = read(scene.path, scene.upright, max_pixels)
    whole = draw_boxes(picture, [box], [""], Style(color, 1), SCENE)
    cut = cut_out(picture, box, CROP)
    return Figure(cut, data_url(whole), color, title, scene.name, similarity)


def sheet(title: str, sections: list[Section]) -> Image.Image:
    """Arrange one row of crops for each query below a title."""
    tiles = []
    for section in sections:
        details = section.details.replace("first correct match", "hit").split(" · ")[:2]
        captions = ["\n".join([section.title, *details])]
        captions += [f"{shown.title}\n{shown.note}" for shown in section.figures[1:]]
        line = [Tile(f.person, said, f.color) for f, said in zip(section.figures, captions)]
        blank = Tile(Image.new("RGB", CROP, (255, 255, 255)), "")
        tiles += line + [blank] * (TOP + 1 - len(line))
    return contact_sheet(tiles, TOP + 1, title, width=1900)


def result_page(title: str, sections: list[Section]) -> str:
    """Return one self-contained HTML page."""
    intro = Markup(
        '<b style="color:{}">Query</b>, then its ten best matches: <b style="color:{}">correct</b> '
        'or <b style="color:{}">wrong</b>; rank · similarity, image. Click to enlarge.'
    )
    return page(title, intro.format(css(BLUE), css(GREEN), css(RED)), sections)


def main() -> None:
    args = parse_args()
    cfg = load_cfg(args.cfg, args.overrides)
    out = args.out or Path(cfg.OUTPUT_DIR) / "queries.html"
    dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT)
    protocol = check_settings(dataset, cfg)[0]
    cache = load_cache(Path(cfg.OUTPUT_DIR) / CACHE, dataset, cfg)
    title, sections = sections_of(dataset, cache, protocol, cfg, args)
    if out.suffix == ".png":
        save_picture(sheet(title, sections), out)
    else:
        write_text(result_page(title, sections), out)
    print(f"{title}\n{out}")


if __name__ == "__main__":
    run_main(main)

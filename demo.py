"""Search a folder of pictures for one person: find everyone, rank them by similarity to the query,
and draw the result."""

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from configs.defaults import load_cfg
from engine.checkpoint import load_net
from engine.evaluation.evaluate import SEARCH_SCORE
from models.build import choose_device
from models.network import Network
from utils.drawing import Style, Tile, contact_sheet, cut_out, draw_boxes, stack
from utils.errors import UserError, reason_of, run_main
from utils.files import make_folder, read_text
from utils.media import read_picture, read_pixels
from utils.names import output_names, printable
from utils.sources import LeftOut, Medium, told, unread, walk

DEMO = Path(__file__).parent / "demo_imgs"
TOP = 8  # matches that get a rank
CUT_OUT = (160, 320)  # size of a person on the contact sheet, pixels
SCENES_SHOWN = 12  # on the contact sheet, those with the best matches
RANKED = Style((46, 204, 113), 1.0)  # the best match of its picture, among the TOP of all
BEST = Style((255, 176, 32), 0.6)  # the best match of its picture, not among the TOP
ALSO_RANKED = Style((225, 232, 240), 0.5)  # among the TOP, but another one here is better
OTHER = Style((225, 232, 240), 0.0)
QUERY = Style((64, 132, 255), 1.0)


@dataclass(eq=False)
class Found:
    """The people found in one picture: boxes [n, 4] x1 y1 x2 y2 in pixels and similarities [n],
    best first; ranks [n] among all pictures, from 1, 0 for none."""

    picture: Medium
    boxes: Tensor
    similarities: Tensor
    ranks: Tensor


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of that config")
    parser.add_argument(
        "--query",
        type=Path,
        metavar="IMAGE",
        help="picture with the person to look for (default: demo_imgs/query.json)",
    )
    parser.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("X1", "Y1", "X2", "Y2"),
        help="where the person stands in it, pixels",
    )
    parser.add_argument(
        "--gallery",
        type=Path,
        default=DEMO,
        metavar="SOURCE",
        help="pictures to search: a folder with its sub-folders, or a file (default: demo_imgs)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the drawn pictures go (default: OUTPUT_DIR/demo)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY VALUE", help="config values, for example DEVICE cpu"
    )
    return parser.parse_intermixed_args()


def default_query() -> tuple[Path, list[float]]:
    """The query that comes with the demo pictures."""
    path = DEMO / "query.json"
    if not path.is_file():
        raise UserError(f"--query: expected IMAGE and --box X1 Y1 X2 Y2; there is no {path} either")
    try:
        query = json.loads(read_text(path, "--query"))
        x1, y1, x2, y2 = map(float, query["box"])
        return DEMO / query["image"], [x1, y1, x2, y2]
    except (ValueError, KeyError, TypeError, RecursionError):
        expected = '{"image": NAME, "box": [X1, Y1, X2, Y2]}'
        raise UserError(f"{path}: expected {expected}") from None


def choose_query(path: Path | None, box: list[float] | None) -> tuple[Path, Tensor, Tensor]:
    """The query's picture: its path, the image [3, H, W] and the box [4] in it, checked."""
    if (path is None) != (box is None):
        raise UserError(
            "--query IMAGE and --box X1 Y1 X2 Y2: expected both or neither, found only "
            + ("--box" if path is None else f"--query {path}")
        )
    if path is None:
        path, box = default_query()
    image = own_image(path)
    (x1, y1, x2, y2), (height, width) = box, image.shape[1:]
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        found = " ".join(f"{value:g}" for value in box)
        raise UserError(
            f"--box {found}: expected x1 < x2 and y1 < y2 within {path}, which is "
            f"{width} x {height} pixels"
        )
    return path, image, torch.tensor(box)


def own_image(path: Path) -> Tensor:
    """[3, H, W] float32, RGB in 0..1, upright."""
    return read_pixels(path, upright=True).float().div_(255)


def gallery_images(source: Path, out: Path) -> tuple[list[Medium], list[LeftOut]]:
    """The pictures of a folder with its sub-folders, or the one picture, and what is left out."""
    pictures, left = walk([source], "--gallery", out=out)
    if not pictures:
        raise no_pictures(source, left)
    return pictures, left


def no_pictures(source: Path, left: list[LeftOut]) -> UserError:
    return UserError("; ".join([f"--gallery {source}: expected pictures, found none", *told(left)]))


def search(
    net: Network,
    device: torch.device,
    query: Tensor,
    box: Tensor,
    pictures: list[Medium],
) -> tuple[list[Found], list[LeftOut]]:
    """Everyone in the pictures, with the similarity to the person in `box` of the query image:
    inner product of the query's unit embedding with the confidence-weighted ones. Each picture
    goes alone: beside a larger one it would be padded, which its edge would show. What cannot be
    read is left out."""
    wanted = net.embed([query.to(device)], [box[None].to(device)])[0][0]
    found, left = [], []
    for picture in tqdm(pictures, "search", unit="image"):
        try:
            image = own_image(picture.path)
        except UserError as error:
            left.append(unread(picture, error))
            continue
        people = net.detect([image.to(device)])[0]
        sure = people.scores >= SEARCH_SCORE
        similarities, order = (people.embeddings[sure] @ wanted).sort(descending=True)
        boxes = people.boxes[sure][order].cpu()
        none = torch.zeros(len(boxes)).long()
        found.append(Found(picture, boxes, similarities.cpu(), none))
    return found, left


def rank(found: list[Found]) -> list[tuple[Found, int]]:
    """Give the TOP most similar people their ranks; returns them, best first."""
    people = [(scene, i) for scene in found for i in range(len(scene.boxes))]
    best = sorted(people, key=lambda one: -float(one[0].similarities[one[1]]))[:TOP]
    for place, (scene, i) in enumerate(best, 1):
        scene.ranks[i] = place
    return best


def draw_scene(scene: Found, query_box: Tensor | None, long_side: int | None = None) -> Image.Image:
    """The picture with everyone in it; query_box: where the query stands, if it is her picture."""
    boxes, captions, styles = scene.boxes.tolist(), [], []
    for i, (similarity, place) in enumerate(zip(scene.similarities.tolist(), scene.ranks.tolist())):
        captions.append(f"#{place}   {similarity:.2f}" if place else f"{similarity:.2f}")
        first = i == 0 and query_box is None
        styles.append((RANKED if place else BEST) if first else ALSO_RANKED if place else OTHER)
    if query_box is not None:
        others = (box_iou(scene.boxes, query_box[None])[:, 0] < 0.5).tolist()
        boxes = [*compress(boxes, others), query_box.tolist()]
        captions = [*compress(captions, others), "query"]
        styles = [*compress(styles, others), QUERY]
    image = read_picture(scene.picture.path, upright=True)
    return draw_boxes(image, boxes, captions, styles, long_side)


def draw_sheet(
    query: Tile, found: list[Found], best: list[tuple[Found, int]], pictures: list[Image.Image]
) -> Image.Image:
    """The query and its best matches, and under them the scenes with the best matches."""
    tiles = [query]
    for place, (scene, i) in enumerate(best, 1):
        image = read_picture(scene.picture.path, upright=True)
        caption = f"#{place}   {scene.similarities[i]:.2f}\n{scene.picture.name}"
        color = RANKED.color if i == 0 else None
        tiles.append(Tile(cut_out(image, scene.boxes[i], CUT_OUT), caption, color))
    scenes = [Tile(picture, scene.picture.name) for scene, picture in zip(found, pictures)]
    return stack(
        [
            contact_sheet(tiles, TOP + 1, "Query and best matches"),
            contact_sheet(
                scenes,
                3,
                "Scenes, best match first; the best of each is green with a rank, orange without",
            ),
        ]
    )


def print_table(best: list[tuple[Found, int]]) -> None:
    rows = []
    for place, (scene, i) in enumerate(best, 1):
        box = " ".join(f"{value:.0f}" for value in scene.boxes[i].tolist())
        rows.append([place, printable(scene.picture.name), box, float(scene.similarities[i])])
    print(tabulate(rows, ["rank", "image", "box", "similarity"], floatfmt=".3f"))


def save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path, quality=92)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)})") from None


def main() -> None:
    args = parse_args()
    cfg = load_cfg(args.cfg, args.overrides)
    if "INPUT.SKIP_DAMAGED" in args.overrides[::2] and not cfg.INPUT.SKIP_DAMAGED:
        raise UserError(
            "override INPUT.SKIP_DAMAGED False: pictures that cannot be read are always named and "
            "passed over here; expected True, or nothing"
        )
    query_path, query, box = choose_query(args.query, args.box)
    out = args.out or Path(cfg.OUTPUT_DIR) / "demo"
    if out.resolve() == args.gallery.resolve():
        raise UserError(f"--out {out}: is the gallery; expected another folder")
    pictures, left = gallery_images(args.gallery, out)
    device = choose_device(cfg.DEVICE)
    net = load_net(cfg, args.ckpt, device)
    make_folder(out, "--out")

    found, bad = search(net, device, query, box, pictures)
    left += bad
    if not found:
        raise no_pictures(args.gallery, left)
    for line in told(left):
        print(line, file=sys.stderr)
    own = [scene for scene in found if scene.picture.path.samefile(query_path)]
    others = [scene for scene in found if scene not in own]
    best = rank(others)
    names = output_names(f"scene_{scene.picture.name}" for scene in found)
    for scene, name in zip(found, names):
        save(draw_scene(scene, box if scene in own else None), out / name)
    others.sort(key=lambda scene: -max(scene.similarities.tolist(), default=-2))
    shown = (others + own)[:SCENES_SHOWN]
    thumbs = [draw_scene(scene, box if scene in own else None, 500) for scene in shown]
    person = cut_out(to_pil_image(query), box, CUT_OUT)
    tile = Tile(person, f"query\n{query_path.name}", QUERY.color)
    save(draw_sheet(tile, shown, best, thumbs), out / "contact_sheet.jpg")

    print_table(best) if best else print(f"no person found in {len(others)} pictures")
    if own:
        print(f"{printable(query_path.name)} is the query's own picture: drawn, but not ranked")
    print(f"{len(found)} pictures: {out}/scene_*\ncontact sheet: {out / 'contact_sheet.jpg'}")


if __name__ == "__main__":
    run_main(main)

"""Results of a search: a table, matches.json, drawn pictures, a contact sheet and a page."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup
from PIL import Image, ImageDraw
from tabulate import tabulate
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.transforms.functional import to_pil_image

from engine.cameras.pictures import picture_path
from engine.cameras.times import local_time
from engine.index.gallery_index import GalleryIndex, similarities
from engine.index.records import Match, Person, camera_of
from utils.drawing import Style, Tile, contact_sheet, cut_out, draw_boxes, stack
from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.media import read_picture
from utils.names import printable, short_names
from utils.pages import Figure, Section, Span, Timeline, clock, css, data_url, page
from utils.videos import read_frame

CUT_OUT = (160, 320)  # width and height of a crop on the contact sheet, pixels
CROP, SCENE = (128, 256), 900  # on the page: size of a crop, longer side of a picture; pixels
COLUMNS = 9  # of the contact sheet: the query and eight matches
MATCHES_SHOWN, SCENES_SHOWN = 200, 12  # on the contact sheet: a JPEG has at most 65,500 rows
RANKED = Style((46, 204, 113), 1.0)  # the best match of its picture
BEST = Style((255, 176, 32), 0.6)  # the most similar person of a picture without a match
ALSO_RANKED = Style((225, 232, 240), 0.5)  # a match in a picture with a better match
OTHER = Style((225, 232, 240), 0.0)
QUERY = Style((64, 132, 255), 1.0)

Reader = Callable[[Path, float | None], Image.Image]  # read_scene, possibly cached


@dataclass(frozen=True)
class QueryPerson:
    """A query.

    Attributes:
        path: of the picture.
        pixels: [3, H, W] uint8.
        box: [4], the person in the picture.
    """

    path: Path
    pixels: Tensor
    box: Tensor

    @property
    def real_path(self) -> Path:
        return Path(os.path.realpath(self.path))


@dataclass(frozen=True)
class SearchedImage:
    """A picture, or a frame of a video at `time` seconds, with its people.

    Attributes:
        people, similarities: in descending order of similarity.
    """

    path: Path
    time: float | None
    people: list[Person]
    similarities: list[float]

    @property
    def best(self) -> float:
        """The highest similarity; -2 if there are no people."""
        return max(self.similarities, default=-2.0)


def searched_image(
    index: GalleryIndex, path: Path, time: float | None, query_embeddings: Tensor
) -> SearchedImage:
    """Return the people of the index in one picture or frame, with their similarities."""
    people = index.people.in_scene(path, time)
    similar = similarities(people, query_embeddings).max(1).tolist() if people else []
    order = sorted(range(len(people)), key=lambda i: -similar[i])
    return SearchedImage(path, time, [people[i] for i in order], [similar[i] for i in order])


def as_json(matches: Sequence[Match], index: Path | None = None) -> list[dict]:
    """Return one record per match, in order of rank.

    Matches in videos have "time", and "from" and "to" of the tracklet, in seconds. Matches of
    cameras have "camera", and times in ISO 8601.

    Args:
        index: folder of the index, which contains the pictures of cameras.
    """
    records = []
    for rank, match in enumerate(matches, 1):
        person = match.person
        record = {"rank": rank, "image": str(scene_path(person.path, person.time, index))}
        if camera := camera_of(person.path):
            record["camera"] = camera
        if person.time is not None and match.span is not None:
            times = {"time": person.time, "from": match.span[0], "to": match.span[1]}
            record |= {name: time_in_json(person.path, value) for name, value in times.items()}
        record |= {
            "box": [round(value, 2) for value in person.box],
            "score": round(person.score, 4),
            "similarity": round(match.similarity, 4),
        }
        records.append(record)
    return records


def time_in_json(path: Path, seconds: float) -> float | str:
    """Return a time in a source: in ISO 8601 for a camera, in seconds for a video."""
    if camera_of(path) is None:
        return round(seconds, 3)
    return local_time(seconds)


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the names of sources: the name of a camera, or the `short_names` of files."""
    cameras = {path: name for path in paths if (name := camera_of(path)) is not None}
    return cameras | short_names([path for path in paths if path not in cameras])


def name_of(path: Path) -> str:
    """Return the name of a camera or of a file."""
    return camera_of(path) or path.name


def label(name: str, time: float | None) -> str:
    """Return a picture's name, or a video's name and time."""
    return name if time is None else f"{name} {clock(time)}"


def table(matches: Sequence[Match], persons: Sequence[str] = ()) -> str:
    """Format the matches as a text table, with a column "from-to" if there are matches in videos.

    Args:
        persons: titles of the matches' persons, for a column of their own.
    """
    names, rows = names_of([match.person.path for match in matches]), []
    for rank, match in enumerate(matches, 1):
        box = " ".join(f"{value:.0f}" for value in match.person.box)
        when = "" if match.span is None else "-".join(map(clock, match.span))
        name = printable(label(names[match.person.path], match.person.time))
        rows.append([rank, name, when, box, match.similarity])
    heads = ["rank", "image", "from-to", "box", "similarity"]
    if not any(row[2] for row in rows):
        rows, heads = [[*row[:2], *row[3:]] for row in rows], [*heads[:2], *heads[3:]]
    if persons:
        rows = [[row[0], title, *row[1:]] for row, title in zip(rows, persons)]
        heads.insert(1, "person")
    return tabulate(rows, heads, floatfmt=".3f")


def scene_path(path: Path, time: float | None, index: Path | None) -> Path:
    """Return the file that shows a person; for a camera, a picture in the folder of the index."""
    camera = camera_of(path)
    if camera is None or time is None or index is None:
        return path
    return picture_path(index, camera, time)


def read_scene(
    path: Path, time: float | None, index: Path | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture or frame. If this fails, return a grey image that contains the reason.

    Args:
        index: folder of the index, which contains the pictures of cameras.
        max_pixels: of a picture or frame.
    """
    try:
        file = scene_path(path, time, index)
        if time is None or file != path:
            return read_picture(file, True, max_pixels)
        return to_pil_image(read_frame(path, time, max_pixels))
    except UserError as error:
        picture = Image.new("RGB", (1200, 800), (128, 128, 128))
        ImageDraw.Draw(picture).text((40, 40), printable(str(error)), font_size=28)
        return picture


def draw_query(pixels: Tensor, boxes: Tensor) -> Image.Image:
    """Draw the people of a picture with numbers, counted from 1."""
    captions = [str(number) for number in range(1, len(boxes) + 1)]
    return draw_boxes(to_pil_image(pixels), boxes, captions, QUERY)


def draw_scene(
    scene: SearchedImage,
    ranks: dict[int, int],
    queries: Sequence[QueryPerson],
    read: Reader,
    long_side: int | None = None,
) -> Image.Image:
    """Draw a searched picture with all its people.

    Args:
        ranks: person id -> rank of the match.
        queries: those whose picture this is. Their boxes replace the detections that overlap them.
    """
    boxes = [person.box for person in scene.people]
    captions, styles = [], []
    for i, (person, similarity) in enumerate(zip(scene.people, scene.similarities)):
        rank = ranks.get(person.id)
        captions.append(f"#{rank}   {similarity:.2f}" if rank else f"{similarity:.2f}")
        first = i == 0 and not queries
        styles.append((RANKED if rank else BEST) if first else ALSO_RANKED if rank else OTHER)
    for query in queries:
        where = torch.tensor(boxes).reshape(-1, 4)
        far = [i for i, iou in enumerate(box_iou(where, query.box[None])[:, 0]) if iou < 0.5]
        boxes = [*(boxes[i] for i in far), tuple(query.box.tolist())]
        captions = [*(captions[i] for i in far), "query"]
        styles = [*(styles[i] for i in far), QUERY]
    return draw_boxes(read(scene.path, scene.time), boxes, captions, styles, long_side)


def draw_sheet(
    queries: Sequence[QueryPerson],
    matches: Sequence[Match],
    scenes: Sequence[SearchedImage],
    pictures: Sequence[Image.Image],
    read: Reader,
) -> Image.Image:
    """Draw the contact sheet: queries and their best matches at the top, whole pictures below.

    Args:
        scenes: the whole pictures.
        pictures: their drawings.
    """
    tiles = []
    for query in queries:
        cut = cut_out(to_pil_image(query.pixels), query.box, CUT_OUT)
        tiles.append(Tile(cut, f"query\n{query.path.name}", QUERY.color))
    for rank, match in enumerate(matches[:MATCHES_SHOWN], 1):
        person = match.person
        cut = cut_out(read(person.path, person.time), person.box, CUT_OUT)
        caption = f"#{rank}   {match.similarity:.2f}\n{label(name_of(person.path), person.time)}"
        tiles.append(Tile(cut, caption, RANKED.color if _is_best(match, matches) else None))
    below = [Tile(p, label(name_of(s.path), s.time)) for s, p in zip(scenes, pictures)]
    legend = "Pictures, best match first; the best of each is green with a rank, orange without"
    title = "Query and best matches"
    if len(matches) > MATCHES_SHOWN:
        title += f": {MATCHES_SHOWN} of {len(matches)}"
    sheets = [contact_sheet(tiles, COLUMNS, title)]
    return stack([*sheets, contact_sheet(below, 3, legend)] if below else sheets)


def _is_best(match: Match, matches: Sequence[Match]) -> bool:
    """Return True if the match is the best one in its picture.

    Args:
        matches: all matches, best first.
    """
    place = match.person.path, match.person.time
    return match is next(m for m in matches if (m.person.path, m.person.time) == place)


def result_page(
    title: str,
    queries: Sequence[QueryPerson],
    matches: Sequence[Match],
    index: GalleryIndex,
    read: Reader,
) -> str:
    """Render one self-contained HTML page: queries, matches with pictures, timelines of videos."""
    query_figures = []
    for query in queries:
        picture = to_pil_image(query.pixels)
        scene = draw_boxes(picture, [query.box], [""], QUERY, SCENE)
        cut = cut_out(picture, query.box, CROP)
        query_figures.append(Figure(cut, data_url(scene), QUERY.color, "query", query.path.name))
    names = names_of([match.person.path for match in matches])
    found = []
    for rank, match in enumerate(matches, 1):
        person, picture = match.person, read(match.person.path, match.person.time)
        scene = draw_boxes(picture, [person.box], [f"#{rank}"], RANKED, SCENE)
        words = f"{rank} · {match.similarity:.2f}" + _of_query(match, matches)
        note = label(names[person.path], person.time)
        cut = cut_out(picture, person.box, CROP)
        found.append(Figure(cut, data_url(scene), RANKED.color, words, note, match.similarity))
    intro = Markup(
        '<b style="color:{}">Query</b> and the most similar people; rank · similarity, image. '
        "Click to enlarge."
    ).format(css(QUERY.color))
    counted = f"{len(matches)} matches" if matches else "nobody"
    sections = [
        Section("Query", f"{len(queries)} queries" if len(queries) > 1 else "one", query_figures),
        Section("Matches", counted, found, _timelines(matches, names, index)),
    ]
    return page(title, intro, sections)


def _of_query(match: Match, matches: Sequence[Match]) -> str:
    """Return the number of the query to which a match belongs; "" if all belong to the first
    one."""
    return f" · of query {match.query + 1}" if any(m.query for m in matches) else ""


def _timelines(
    matches: Sequence[Match], names: dict[Path, str], index: GalleryIndex
) -> list[Timeline]:
    """Return one timeline per video or camera with a match."""
    lines: dict[Path, list[Span]] = {}
    for i, match in enumerate(matches):
        if match.span is not None:
            lines.setdefault(match.person.path, []).append(Span(*match.span, i))
    return timelines(lines, names, index.people.read_until)


def timelines(
    lines: dict[Path, list[Span]], names: dict[Path, str], length: Callable[[Path], float]
) -> list[Timeline]:
    """Return one timeline per source. All cameras have the same scale.

    Args:
        length: a function that returns the last second of a video.
    """
    live = [span for path, spans in lines.items() if camera_of(path) for span in spans]
    start = min((span.first for span in live), default=0.0)
    end = max((span.last for span in live), default=0.0)
    return [
        Timeline(names[path], end, spans, start)
        if camera_of(path)
        else Timeline(names[path], length(path), spans)
        for path, spans in lines.items()
    ]

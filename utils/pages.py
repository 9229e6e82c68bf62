"""Self-contained HTML pages that show people in their pictures.

A click enlarges a picture, a slider hides people of lower similarity, and timelines show when a
person appears in a video. The template is page.html beside this file.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from utils.drawing import Color
from utils.names import printable

ROW_HEIGHT = 24  # of a timeline, pixels
SHORTEST = 0.02  # of a timeline's length: the space of a number
DATES = 1e8  # seconds; no video is so long, and no camera was live so early


@dataclass(frozen=True)
class Figure:
    """The crop of a person, the whole picture, and texts.

    Attributes:
        scene: a `data_url`, which takes less memory than the image.
        similarity: the figure is hidden if the slider is above this value; None: never.
    """

    person: Image.Image
    scene: Markup
    color: Color
    title: str
    note: str
    similarity: float | None = None


@dataclass(frozen=True)
class Span:
    """The first and last second of a person in a video.

    Attributes:
        figure: position among the section's figures.
    """

    first: float
    last: float
    figure: int


@dataclass(frozen=True)
class Timeline:
    """A video or camera: the spans of its people, and the seconds at which the line begins and
    ends."""

    title: str
    end: float
    spans: Sequence[Span]
    start: float = 0.0


@dataclass(frozen=True)
class Section:
    """The figures and timelines of a query, or of a group of matches."""

    title: str
    details: str
    figures: Sequence[Figure]
    timelines: Sequence[Timeline] = ()


def page(title: str, intro: Markup, sections: Sequence[Section]) -> str:
    """Render one HTML page. All texts are escaped, except `intro`, which is HTML."""
    found = [f.similarity for s in sections for f in s.figures if f.similarity is not None]
    return _template().render(
        title=title,
        intro=intro,
        sections=sections,
        similarities=found,
        row_height=ROW_HEIGHT,
        shortest=SHORTEST,
    )


def _template():
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
    )
    environment.filters |= {"css": css, "data_url": data_url, "period": period, "rows": rows_of}
    return environment.get_template("page.html")


def _printable(value: object) -> object:
    """Escape characters that cannot be written as UTF-8, which occur in file names of other
    encodings."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def rows_of(spans: Sequence[Span], min_length: float = 0.0) -> list[int]:
    """Assign to each span the first row in which no earlier span overlaps it.

    Args:
        min_length: seconds; shorter spans are drawn with this length.
    """
    rows: list[list[Span]] = []
    given = []
    for span in spans:
        free = (
            i
            for i, row in enumerate([*rows, []])
            if all(
                span.first > max(one.last, one.first + min_length)
                or max(span.last, span.first + min_length) < one.first
                for one in row
            )
        )
        given.append(next(free))
        if given[-1] == len(rows):
            rows.append([])
        rows[given[-1]].append(span)
    return given


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, as video players do: 1:02.5.

    Seconds since 1970 become local date and time.
    """
    if seconds >= DATES:
        return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def period(first: float, last: float) -> str:
    """Format a time and a later one; a date that both have is written once."""
    start, end = clock(first), clock(last)
    if start == end:
        return start
    date, _, time = end.rpartition(" ")
    return f"{start} – {time if start.startswith(date) else end}"


def css(color: Color) -> str:
    """Format a colour for CSS: #2ecc71."""
    return "#" + bytes(color).hex()


def data_url(image: Image.Image) -> Markup:
    """Encode the picture as the data URL of a JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return Markup("data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode())

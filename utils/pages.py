"""Self-contained HTML pages of people in their scenes: click to enlarge, a slider that hides what
is less similar, timelines of videos."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from utils.drawing import Color
from utils.names import printable


@dataclass(frozen=True)
class Figure:
    """A person cut out, her scene, and what is said of her; similarity: where the slider hides her,
    None if never."""

    person: Image.Image
    scene: Image.Image
    color: Color
    title: str
    note: str
    similarity: float | None = None


@dataclass(frozen=True)
class Span:
    """When someone is in a video, seconds; figure: her number among the section's."""

    first: float
    last: float
    figure: int


@dataclass(frozen=True)
class Timeline:
    """A video of so many seconds, and who is in it when."""

    title: str
    seconds: float
    spans: Sequence[Span]


@dataclass(frozen=True)
class Section:
    title: str
    details: str
    figures: Sequence[Figure]
    timelines: Sequence[Timeline] = ()


ROW = 24  # of a timeline, pixels high

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 24px; background: #f4f5f7; color: #181c22; }}
h1 {{ font-size: 20px; margin: 0 0 4px; }} p {{ margin: 0 0 20px; color: #555; }}
section {{ background: #fff; border-radius: 8px; padding: 14px 16px; margin: 0 0 18px;
  box-shadow: 0 1px 3px #0002; }}
h2 {{ font-size: 16px; margin: 0 0 10px; }} h2 small {{ font-weight: 400; color: #555; }}
.row {{ display: flex; flex-wrap: wrap; gap: 10px; }}
figure {{ margin: 0; width: 136px; }} figure.query {{ margin-right: 14px; }}
figure > img:first-child {{ display: block; width: 128px; border: 4px solid; border-radius: 4px; }}
.scene {{ display: block; width: 136px; margin-top: 6px; border-radius: 3px; }}
img {{ cursor: zoom-in; }}
figcaption {{ font-variant-numeric: tabular-nums; padding-top: 4px; overflow-wrap: anywhere; }}
figcaption small {{ display: block; color: #777; }}
.line {{ display: grid; grid-template-columns: 180px 1fr 60px; gap: 10px; align-items: center;
  margin-top: 12px; overflow-wrap: anywhere; }}
.bar {{ position: relative; background: #e8ebf0; border-radius: 4px; }}
.bar a {{ position: absolute; height: 22px; min-width: 5px; border-radius: 4px;
  font-size: 12px; line-height: 22px; color: #fff; text-decoration: none; text-align: center;
  overflow: hidden; }}
.filter {{ position: sticky; top: 0; padding: 8px 0; background: #f4f5f7; display: flex; gap: 12px;
  align-items: center; }} .filter input {{ width: 320px; }}
[hidden] {{ display: none !important; }} :target {{ background: #fff3c4; }}
dialog {{ padding: 0; border: 0; max-width: 96vw; max-height: 96vh; cursor: zoom-out; }}
dialog::backdrop {{ background: #000b; }}
dialog img {{ display: block; max-width: 96vw; max-height: 96vh; min-width: min(900px, 96vw);
  cursor: zoom-out; }}
</style></head><body><h1>{title}</h1>
<p>{intro}</p>
{filter}{sections}<dialog><img alt=""></dialog><script>
const large = document.querySelector("dialog");
document.addEventListener("click", event => {{
  if (large.open) return large.close();
  if (event.target.tagName != "IMG") return;
  const figure = event.target.closest("figure");
  large.firstChild.src = (figure.querySelector(".scene") || event.target).src;
  large.showModal();
}});
const slider = document.querySelector("#least");
if (slider) slider.oninput = () => {{
  const rated = [...document.querySelectorAll("[data-similarity]")];
  for (const one of rated) one.hidden = Number(one.dataset.similarity) < Number(slider.value);
  const figures = rated.filter(one => one.tagName == "FIGURE");
  document.querySelector("#told").textContent = `${{Number(slider.value).toFixed(2)}} or more: ` +
    `${{figures.filter(one => !one.hidden).length}} of ${{figures.length}}`;
}};
</script></body></html>
"""
FILTER = (
    '<div class="filter"><label for="least">similarity</label><input id="least" type="range" '
    'min="{least:.3f}" max="{most:.3f}" step="0.001" value="{least:.3f}">'
    '<span id="told">{least:.2f} or more: {count} of {count}</span></div>\n'
)


def page(title: str, intro: str, sections: Sequence[Section]) -> str:
    """One HTML page. intro: HTML; all else is text. A slider stands over it where figures have
    similarities."""
    similar = [f.similarity for s in sections for f in s.figures if f.similarity is not None]
    rows = (_section(section, f"s{i}") for i, section in enumerate(sections))
    slider = ""
    if similar:
        least, most = min(similar) - 0.001, max(similar) + 0.001
        slider = FILTER.format(least=least, most=most, count=len(similar))
    return PAGE.format(title=text(title), intro=intro, filter=slider, sections="".join(rows))


def _section(section: Section, name: str) -> str:
    figures = "".join(_figure(figure, f"{name}f{i}") for i, figure in enumerate(section.figures))
    lines = "".join(_timeline(line, section.figures, name) for line in section.timelines)
    return (
        f"<section><h2>{text(section.title)} <small>· {text(section.details)}</small></h2>"
        f'<div class="row">{figures}</div>{lines}</section>\n'
    )


def _figure(figure: Figure, name: str) -> str:
    kind = ' class="query"' if figure.similarity is None else _rated(figure)
    return (
        f'<figure id="{name}"{kind}><img src="{inline(figure.person)}" '
        f'style="border-color:{css(figure.color)}" alt=""><figcaption>{text(figure.title)}'
        f"<small>{text(figure.note)}</small></figcaption>"
        f'<img class="scene" src="{inline(figure.scene)}" alt=""></figure>'
    )


def _timeline(line: Timeline, figures: Sequence[Figure], name: str) -> str:
    long = max(line.seconds, 1e-3)
    rows = _rows(line.spans)
    spans = "".join(
        f'<a href="#{name}f{span.figure}"{_rated(figures[span.figure])} '
        f'title="{clock(span.first)} to {clock(span.last)}" style="top:{ROW * row}px;left:'
        f"{100 * span.first / long:.2f}%;width:{100 * (span.last - span.first) / long:.2f}%;"
        f'background:{css(figures[span.figure].color)}">'
        f"{text(figures[span.figure].title.split(' ')[0])}</a>"
        for span, row in zip(line.spans, rows)
    )
    high = f'style="height:{ROW * (max(rows, default=0) + 1) - 2}px"'
    return (
        f'<div class="line"><span>{text(line.title)}</span><div class="bar" {high}>{spans}</div>'
        f"<span>{clock(line.seconds)}</span></div>"
    )


def _rows(spans: Sequence[Span]) -> list[int]:
    """The first row for each span in which no one before it is at the same time."""
    rows: list[list[Span]] = []
    given = []
    for span in spans:
        free = (
            i
            for i, row in enumerate([*rows, []])
            if all(span.first > one.last or span.last < one.first for one in row)
        )
        given.append(next(free))
        if given[-1] == len(rows):
            rows.append([])
        rows[given[-1]].append(span)
    return given


def _rated(figure: Figure) -> str:
    return f' data-similarity="{figure.similarity:.5f}"'


def text(words: str) -> str:
    return html.escape(printable(words))


def clock(seconds: float) -> str:
    """Minutes and seconds, as players show them: 1:02.5."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def css(color: Color) -> str:
    return "#" + bytes(color).hex()


def inline(image: Image.Image) -> str:
    """The picture as a data URL."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

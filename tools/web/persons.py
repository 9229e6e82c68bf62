"""The second tab of the app: where and when each person was seen; naming, merging, splitting."""

import html
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from engine.cameras.identities import Identities, open_identities
from engine.cameras.persons import (
    NumberedPerson,
    known_people,
    only_first,
    places,
    timelines_of,
    when,
)
from engine.index.gallery_index import GalleryIndex
from engine.index.local import LocalPeople
from engine.index.records import Person
from engine.search.presentation import RANKED, name_of, read_scene
from utils.drawing import cut_out, draw_boxes
from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.names import printable
from utils.pages import Timeline, period

CROP = (150, 240)  # width and height of a picture, pixels
MOST = 120  # people shown, and tracklets of a person
# Options of a gallery of people: a click chooses one.
PEOPLE_GALLERY = {
    "object_fit": "cover",
    "allow_preview": False,
    "interactive": False,
    "buttons": [],
}
COLORS = ("#4084ff", "#2ecc71", "#ffb020", "#b36ae2", "#e2596a", "#30b5c0")
CSS = """
.lines { display: grid; grid-template-columns: max-content 1fr; gap: 6px 12px; align-items: center }
.lines div { position: relative; height: 20px; background: #e8ebf0; border-radius: 4px }
.lines i { position: absolute; top: 0; height: 20px; min-width: 4px; border-radius: 4px }
#persons .grid-wrap, #tracklets .grid-wrap { padding-top: 2.4em; height: auto; max-height: 70vh }
#persons .thumbnail-lg, #tracklets .thumbnail-lg { aspect-ratio: 1 / 2 }
#tracklets .grid-container { grid-template-columns: repeat(7, minmax(0, 1fr)) }
#persons .caption-label, #tracklets .caption-label {
    left: 0; right: 0; bottom: 0; max-width: none; border-radius: 0; border: 0; padding: 2px 4px;
    white-space: pre-line; overflow-wrap: anywhere; text-align: center; line-height: 1.3;
}
"""


class PersonsController:
    """Responses of the tab.

    Args:
        index: returns the current index.
        folder: of the index.
        max_pixels: of a picture or frame that is shown.
    """

    def __init__(
        self, index: Callable[[], GalleryIndex], folder: Path, max_pixels: int = MAX_PIXELS
    ):
        self.index, self.folder, self.max_pixels = index, folder, max_pixels

    def people(self) -> tuple[list, list[int], str]:
        """Return pictures with captions, the numbers of these people, and a message."""
        try:
            known = self._known()
        except UserError as error:
            return [], [], message(str(error), "bad")
        if not known:
            none = "There are no numbered people yet: run python -m tools.identities."
            return [], [], message(none)
        shown = [(self._crop(one, 0), _caption(one)) for one in known[:MOST]]
        numbers = [one.number for one in known[:MOST]]
        said = [f"{len(known)} people.", *only_first(known, MOST), "Click on one."]
        return shown, numbers, message(" ".join(said))

    def person(self, number: int) -> tuple:
        """Return what the tab shows of a person, of whom no tracklet is chosen.

        Args:
            number: of the person; 0: nobody.

        Returns:
            The number, pictures with captions and numbers of the tracklets, the timeline, the name,
            and the position (-1) and picture (None) of the chosen tracklet.
        """
        try:
            known = self._known({number})
        except UserError as error:
            return number, [], [], message(str(error), "bad"), "", -1, None
        if not known:
            said = message("This person has been removed.", "bad") if number else ""
            return number, [], [], said, "", -1, None
        one = _newest(known[0])
        shown = [
            (self._crop(one, i), f"{printable(name_of(a.person.path))}\n{when(a)}")
            for i, a in enumerate(one.tracklets)
        ]
        tracklets = [a.person.tracklet for a in one.tracklets]
        lines = timeline(known[0], self.index().people)
        if len(known[0].tracklets) > MOST:
            lines += message(f"The pictures show the newest {MOST} tracklets.")
        return number, shown, tracklets, lines, one.name, -1, None

    def rename(self, person: int, name: str) -> tuple:
        """Name a person. Return the content of the tab, as `people` and `person` do."""

        def decide(identities: Identities) -> tuple[int, str]:
            identities.rename(person, name)
            return person, "Renamed."

        return self._change(person, decide)

    def merge(self, person: int, other: str) -> tuple:
        """Merge a person with the one of a number or name. Return the content of the tab."""

        def decide(identities: Identities) -> tuple[int, str]:
            kept = identities.merge(person, identities.number_of(other.strip()))
            return kept, f"Merged: person {kept}."

        return self._change(person, decide)

    def split(self, person: int, tracklets: Sequence[int], place: int) -> tuple:
        """Split off the tracklet at a position, -1 for none. Return the content of the tab."""

        def decide(identities: Identities) -> tuple[int, str]:
            if place < 0:
                raise UserError("Click on a tracklet first.")
            return person, f"Split off: person {identities.split(person, [tracklets[place]])}."

        return self._change(person, decide)

    def _change(self, person: int, decide: Callable[[Identities], tuple[int, str]]) -> tuple:
        """Apply a decision on a person.

        Args:
            decide: returns the number of the person to be shown, and what was done.
        """
        try:
            if not person:
                raise UserError("Click on a person first.")
            with closing(open_identities(self.folder, self.index().people)) as identities:
                person, done = decide(identities)
            said = message(done)
        except UserError as error:
            said = message(str(error), "bad")
        pictures, numbers, _ = self.people()
        return pictures, numbers, said, *self.person(person)

    def scene(self, number: int, place: int) -> Any:
        """Draw the whole picture of a tracklet; None if it is no longer in the index."""
        try:
            known = self._known({number})
        except UserError:  # `person` shows it
            return None
        shown = _newest(known[0]).tracklets if known else []
        if place >= len(shown):
            return None
        person = shown[place].person
        picture = self._picture(person)
        return draw_boxes(picture, [person.box], [known[0].title], RANKED, 900)

    def _known(self, numbers: set[int] | None = None) -> list[NumberedPerson]:
        people = self.index().people
        with closing(open_identities(self.folder, people)) as identities:
            return known_people(people, identities, numbers=numbers)

    def _crop(self, known: NumberedPerson, place: int) -> Any:
        person = known.tracklets[place].person
        return cut_out(self._picture(person), person.box, CROP)

    def _picture(self, person: Person) -> Image.Image:
        return read_scene(person.path, person.time, self.folder, self.max_pixels)


def message(text: str, kind: str = "good") -> str:
    """Render a text; kind: "good", or "bad" for a mistake."""
    return f'<p class="{kind}">{html.escape(printable(text))}</p>'


def _newest(known: NumberedPerson) -> NumberedPerson:
    """Return a person with the last MOST of their tracklets."""
    return replace(known, tracklets=known.tracklets[-MOST:])


def _seen(known: NumberedPerson) -> str:
    count = len(known.tracklets)
    return f"{count} tracklet{'s' if count > 1 else ''}"


def _caption(known: NumberedPerson) -> str:
    return f"{known.title}\n{_seen(known)}, {printable(', '.join(places(known)))[:60]}"


def timeline(known: NumberedPerson, people: LocalPeople) -> str:
    """Render when each video and camera saw a person. All cameras have the same scale."""
    title = f"Person {known.title}: {_seen(known)}"
    lines = timelines_of(known.tracklets, people)
    if not lines:
        return message(f"{title}, in pictures only")
    rows = []
    for i, (line, after) in enumerate(zip(lines, [*lines[1:], None])):
        rows.append(f"<span>{html.escape(printable(line.title))}</span>")
        rows.append(f"<div>{_bars(line, COLORS[i % len(COLORS)])}</div>")
        if after is None or (after.start, after.end) != (line.start, line.end):
            rows.append(f"<span></span><span>{period(line.start, line.end)}</span>")
    return f'{message(title)}<div class="lines">{"".join(rows)}</div>'


def _bars(line: Timeline, color: str) -> str:
    scale = 100 / max(line.end - line.start, 0.001)
    return "".join(
        f'<i title="{period(span.first, span.last)}" '
        f'style="left:min({(span.first - line.start) * scale:.2f}%,100% - 4px);'
        f'width:{(span.last - span.first) * scale:.2f}%;background:{color}"></i>'
        for span in line.spans
    )


def persons_tab(gr: Any, controller: PersonsController) -> None:
    """Build the tab within Gradio's Tabs."""
    with gr.Tab("People", elem_id="people_tab") as tab, gr.Row():
        numbers, chosen, tracklets, picked = gr.State([]), gr.State(0), gr.State([]), gr.State(-1)
        with gr.Column(scale=2):
            said = gr.HTML(elem_id="persons_message")
            everyone = gr.Gallery(label="People", columns=4, elem_id="persons", **PEOPLE_GALLERY)
        with gr.Column(scale=3):
            lines = gr.HTML(elem_id="timeline")
            some = gr.Gallery(label="Tracklets", columns=7, elem_id="tracklets", **PEOPLE_GALLERY)
            name, call, other, merge, split = _decisions(gr)
            scene = gr.Image(
                label="Picture", height=420, interactive=False, buttons=[], elem_id="tracklet"
            )
    people = [everyone, numbers, said]
    person = [chosen, some, tracklets, lines, name, picked, scene]
    private = {"concurrency_id": "net", "concurrency_limit": 1, "api_visibility": "private"}

    def choose(known: list[int], click: gr.SelectData) -> tuple:
        return controller.person(known[click.index])

    def pick(number: int, click: gr.SelectData) -> tuple:
        return click.index, controller.scene(number, click.index)

    tab.select(controller.people, None, people, **private)
    everyone.select(choose, numbers, person, **private)
    some.select(pick, chosen, [picked, scene], **private)
    call.click(controller.rename, [chosen, name], people + person, **private)
    merge.click(controller.merge, [chosen, other], people + person, **private)
    split.click(controller.split, [chosen, tracklets, picked], people + person, **private)


def _decisions(gr: Any) -> tuple[Any, ...]:
    """Build the text fields and buttons with which a person is named, merged and split."""
    with gr.Row():
        name = gr.Textbox(label="Name", elem_id="person_name")
        call = gr.Button("Rename", elem_id="rename")
    with gr.Row():
        other = gr.Textbox(label="Number or name", elem_id="other")
        merge = gr.Button("Merge with this person", elem_id="merge")
        split = gr.Button("Split off the chosen tracklet", elem_id="split")
    return name, call, other, merge, split

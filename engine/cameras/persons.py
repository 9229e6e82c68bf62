"""The persons of an index as a table, and as a page with pictures and a timeline of each person."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from tabulate import tabulate

from engine.cameras.identities import Identities
from engine.index.local import LocalPeople
from engine.index.records import Match, Person, PersonFilter, camera_of
from engine.search import presentation as show
from utils.drawing import cut_out, draw_boxes
from utils.names import printable
from utils.pages import Figure, Section, Span, Timeline, clock, data_url, page, period

SHOWN = 12  # pictures of a person on the page
PEOPLE_SHOWN = 200  # in the table
ON_PAGE = 60  # people on the page, whose pictures are within it
COLOR = (64, 132, 255)


@dataclass(frozen=True)
class PersonTracklet:
    """A tracklet, or a person in a picture.

    Attributes:
        person: the detection that is shown.
        span: first and last second; None in a picture.
    """

    person: Person
    span: tuple[float, float] | None


@dataclass(frozen=True)
class NumberedPerson:
    """A numbered person with their tracklets in order of time."""

    number: int
    name: str
    tracklets: list[PersonTracklet]

    @property
    def title(self) -> str:
        return f"{self.number} {self.name}".strip()


def known_people(
    people: LocalPeople,
    identities: Identities,
    person_filter: PersonFilter | None = None,
    numbers: Collection[int] | None = None,
) -> list[NumberedPerson]:
    """Return the persons, those with the most tracklets first.

    Args:
        person_filter: which detections count; None: all.
        numbers: of the persons; None: all.
    """
    names, members = identities.names(), identities.members()
    if numbers is not None:
        members = {tracklet: one for tracklet, one in members.items() if one in numbers}
    found: dict[int, list[PersonTracklet]] = {}
    for number, tracklet in _tracklets(people, sorted(members), person_filter).items():
        found.setdefault(members[number], []).append(tracklet)
    known = [
        NumberedPerson(number, names.get(number, ""), sorted(some, key=_order))
        for number, some in found.items()
    ]
    return sorted(known, key=lambda one: (-len(one.tracklets), one.number))


def _order(tracklet: PersonTracklet) -> tuple:
    person = tracklet.person
    return person.time or 0.0, str(person.path), person.id


def _tracklets(
    people: LocalPeople, tracklets: Sequence[int], person_filter: PersonFilter | None
) -> dict[int, PersonTracklet]:
    """Return each tracklet with its best detection that counts; for a camera, one with a
    picture."""
    best = people.best_of(tracklets, person_filter)
    spans, pictured = people.spans(list(best)), people.pictured(list(best), person_filter)
    return {t: PersonTracklet(pictured.get(t, one), spans.get(t)) for t, one in best.items()}


def _quality(person: Person) -> float:
    x1, y1, x2, y2 = person.box
    return person.score * (x2 - x1) * (y2 - y1)


def places(known: NumberedPerson) -> list[str]:
    """Return the names of the cameras and files in which a person was seen, in order of time."""
    return list(dict.fromkeys(show.name_of(one.person.path) for one in known.tracklets))


def when(tracklet: PersonTracklet) -> str:
    """Format the first and last second of a tracklet; "" for a picture."""
    return "" if tracklet.span is None else period(*tracklet.span)


def only_first(known: Sequence[NumberedPerson], most: int) -> list[str]:
    """Return a sentence if only the first `most` persons are shown, else nothing."""
    return [f"The first {most} are shown."] if len(known) > most else []


def table(known: Sequence[NumberedPerson]) -> str:
    """Return a table of the first PEOPLE_SHOWN persons.

    The times of persons whom a camera has seen are those of cameras.
    """
    rows = []
    for one in known[:PEOPLE_SHOWN]:
        live = [each for each in one.tracklets if camera_of(each.person.path)]
        seconds = [second for each in live or one.tracklets for second in each.span or ()]
        first, last = (clock(min(seconds)), clock(max(seconds))) if seconds else ("", "")
        where = printable(", ".join(places(one)))
        rows.append([one.number, printable(one.name), len(one.tracklets), where, first, last])
    lines = tabulate(rows, ["person", "name", "tracklets", "cameras", "first", "last"])
    return "\n".join([lines, *only_first(known, PEOPLE_SHOWN)])


def persons_page(known: Sequence[NumberedPerson], people: LocalPeople, folder: Path) -> str:
    """Render one self-contained page; folder: of the index."""
    sections = [_section(one, people, folder) for one in known[:ON_PAGE]]
    intro = f"{len(known)} people; each with their best pictures, and when each camera saw them."
    words = " ".join([intro, *only_first(known, ON_PAGE)])
    return page("People", Markup.escape(words), sections)


def _section(known: NumberedPerson, people: LocalPeople, folder: Path) -> Section:
    chosen = sorted(known.tracklets, key=lambda one: -_quality(one.person))[:SHOWN]
    chosen.sort(key=_order)
    figures = []
    for i, one in enumerate(chosen):
        picture = show.read_scene(one.person.path, one.person.time, folder)
        scene = draw_boxes(picture, [one.person.box], [str(known.number)], show.RANKED, show.SCENE)
        cut = cut_out(picture, one.person.box, show.CROP)
        name = show.name_of(one.person.path)
        note = f"tracklet {one.person.tracklet} {when(one)}".strip()
        figures.append(Figure(cut, data_url(scene), COLOR, f"{i + 1} {name}", note))
    details = f"{len(known.tracklets)} tracklets in {', '.join(places(known))}"
    return Section(f"Person {known.title}", details, figures, timelines_of(chosen, people))


def timelines_of(tracklets: Sequence[PersonTracklet], people: LocalPeople) -> list[Timeline]:
    """Return when each video and camera saw these tracklets, with their positions."""
    lines: dict[Path, list[Span]] = {}
    for i, one in enumerate(tracklets):
        if one.span is not None:
            lines.setdefault(one.person.path, []).append(Span(*one.span, i))
    return show.timelines(lines, show.names_of(list(lines)), people.read_until)


def as_json(known: NumberedPerson) -> dict:
    """Return a record of a person: number, name, and their tracklets, with place and time."""
    seen = [
        {"tracklet": one.person.tracklet, "camera": show.name_of(one.person.path)}
        | ({} if one.span is None else dict(zip(("from", "to"), _times(one.person, one.span))))
        for one in known.tracklets
    ]
    return {"person": known.number, "name": known.name, "appearances": seen}


def _times(person: Person, span: tuple[float, float]) -> list[float | str]:
    return [show.time_in_json(person.path, second) for second in span]


def search_persons(
    search: Callable[[int], list[Match]], identities: Identities, top: int
) -> list[tuple[int, Match]]:
    """Return the best match of each of the `top` best persons, with the person's number.

    Args:
        search: a function that returns the given number of matches, best first.
    """
    count = top
    while True:
        matches = search(count)
        found = by_person(matches, identities)
        if len(found) >= top or len(matches) < count:
            return found[:top]
        count *= 4


def by_person(matches: Sequence[Match], identities: Identities) -> list[tuple[int, Match]]:
    """Return the best match of each person with the person's number, best first.

    People who were added since the last run of tools.identities have no number; they get 0.
    """
    members, seen, found = identities.members(), set(), []
    for match in matches:
        number = members.get(match.person.tracklet, 0)
        if number not in seen or not number:
            found.append((number, match))
        seen.add(number)
    return found

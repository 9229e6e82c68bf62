"""Search for people in Milvus; engine.index.milvus_writer adds and removes them.

A row of SOURCES is one version of a source, and each row of PEOPLE belongs to one version. For each
path, the finished version with the highest epoch is visible. No result contains people of other
versions.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import numpy as np

from engine.index.local import check_same
from engine.index.records import IndexedSource, Origin, Person, PersonFilter, Source
from utils.addresses import shown_address
from utils.errors import UserError
from utils.optional import optional

LOGGERS = "pymilvus", "milvus_lite", "grpc"
CLUSTER = "http://", "https://"
REQUIREMENTS = "requirements-milvus.txt"
PEOPLE, SOURCES, WRITERS = "people", "sources", "writers"  # collections of one database
IDS = 1 << 62  # the ids of versions and writers are drawn from 1 to this number
LIMIT = 16_384  # rows in an answer of Milvus
IN_FILTER = 500  # values in one filter
TIMEOUT = 20  # seconds to wait for a connection
RECENT = 60.0  # seconds; clocks of the machines differ by less
NONE = -1.0  # in place of a time or an interval: that of a picture
NO_INDEX = "no index there; python -m tools.index_gallery makes one"


@dataclass(frozen=True)
class Address:
    """The address of a database.

    It is a path that ends in ".db" (Milvus Lite) or http[s]://[USER:PASSWORD@]HOST:PORT[/DATABASE].
    As text it contains no user name and no password.

    Raises:
        UserError: if it has another form.
    """

    uri: str

    def __post_init__(self) -> None:
        if not self.lite and not _has_host(self.uri):
            raise UserError(
                f"--index {shown_address(self.uri)}: expected "
                "http[s]://[USER:PASSWORD@]HOST:PORT[/DATABASE], with %2F for a / in the password"
            )

    @staticmethod
    def accepts(text: str) -> bool:
        return text.endswith(".db") or text.startswith(CLUSTER)

    @property
    def lite(self) -> bool:
        return not self.uri.startswith(CLUSTER)

    def __str__(self) -> str:
        parts = urlsplit(self.uri)
        return self.uri.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)


def _has_host(uri: str) -> bool:
    """Return whether an address has a host, and a valid port or none."""
    try:
        parts = urlsplit(uri)
        after = parts.path + parts.query + parts.fragment
        return bool(parts.hostname) and parts.port != 0 and "@" not in after
    except ValueError:
        return False


class MilvusPeople:
    """The people of one database of Milvus; see engine.index.gallery_index.Store.

    Raises:
        UserError: from every method, if Milvus reports an error.
    """

    def __init__(self, address: Address):
        self.address = address
        self._lock = threading.RLock()
        self._milvus = optional("pymilvus", f"--index {self.address}", REQUIREMENTS)
        if address.lite:
            optional("milvus_lite", f"--index {self.address}", REQUIREMENTS)
        with self._errors():
            self.client = self._milvus.MilvusClient(address.uri, timeout=TIMEOUT)
        if self.exists():
            self.load()

    def load(self) -> None:
        """Load the collections. Milvus Lite does not do so by itself after a start."""
        for collection in (PEOPLE, SOURCES, WRITERS):
            self._call("load_collection", collection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Serialize calls, which Milvus Lite requires, and convert errors to UserErrors, without
        logs."""
        loggers = [logging.getLogger(name) for name in LOGGERS]
        with self._lock:
            levels = [logger.level for logger in loggers]
            try:
                for logger in loggers:
                    logger.setLevel(logging.CRITICAL)
                yield
            except self._milvus.MilvusException as error:
                reason = " ".join(error.message.split())
                if "Open local milvus failed" in reason:
                    reason = "cannot be opened: no Milvus Lite, or another program has opened it"
                raise UserError(f"--index {self.address}: {reason}") from None
            finally:
                for logger, level in zip(loggers, levels):
                    logger.setLevel(level)

    def _call(self, method: str, *arguments, **options) -> Any:
        with self._errors():
            return getattr(self.client, method)(*arguments, **options)

    def _query(self, collection: str, filter: str, fields: Sequence[str] = ("*",)) -> list[dict]:
        options = {"output_fields": list(fields), "consistency_level": "Strong"}
        return self._call("query", collection, filter=filter, **options)

    def _of(
        self, collection: str, name: str, values: Iterable, more="", fields: Sequence[str] = ("*",)
    ) -> list[dict]:
        """Return the rows whose field `name` has one of the values.

        Args:
            more: a further condition.
        """
        rows, values = [], list(values)
        for start in range(0, len(values), IN_FILTER):
            some = json.dumps(values[start : start + IN_FILTER])
            rows += self._query(collection, f"{name} in {some}{more}", fields)
        return rows

    def _all(self, collection: str) -> list[dict]:
        """Return all rows, in parts of about LIMIT / 4. This is possible because ids are uniformly
        distributed."""
        ends = np.linspace(0, IDS, 4 * self._count(collection) // LIMIT + 2).astype(int).tolist()
        parts = (f"id >= {first} and id < {end}" for first, end in pairwise(ends))
        return [row for part in parts for row in self._query(collection, part)]

    def _count(self, collection: str) -> int:
        return self._query(collection, "", ["count(*)"])[0]["count(*)"]

    def exists(self) -> bool:
        """Return whether the database contains an index."""
        return {PEOPLE, SOURCES, WRITERS} <= set(self._call("list_collections"))

    @cached_property
    def kind(self) -> str:
        return self._call("describe_index", PEOPLE, "vector")["index_type"]

    @cached_property
    def origin(self) -> Origin:
        """The network with which the embeddings were computed."""
        origins = self._origins()
        if not origins:
            raise UserError(f"--index {self.address}: {NO_INDEX}")
        return origins[0]

    def _origins(self) -> list[Origin]:
        """Return the networks of all writers."""
        stored = [json.loads(row["origin"]) for row in self._all(WRITERS)]
        return [Origin(name, text, np.array(probe, np.float32)) for name, text, probe in stored]

    def is_current(self) -> bool:
        """Return False if an index of another network has replaced this one since it was opened."""
        found = self._origins() if self.exists() else []
        return bool(found) and not found[0].differs_from(self.origin)

    # --- searching ---

    def candidates(
        self,
        queries: np.ndarray,
        count: int,
        exclude: Collection[Path] = (),
        person_filter: PersonFilter | None = None,
    ) -> tuple[list[Person], float]:
        """Find the people near to queries; see engine.index.local.LocalPeople.candidates."""
        hits, bound = self._nearest(queries, count, _conditions(person_filter))
        sources = self._sources_of(hits)
        recent = [row for row in sources.values() if time.time() - row["finished"] < RECENT]
        # The first search may have been before all people of these sources were visible.
        if recent and not self.address.lite:
            hits, bound = self._nearest(queries, count, _conditions(person_filter))
        people = [_person(hit, sources[hit["source"]]) for hit in hits if hit["source"] in sources]
        return [person for person in people if person.path not in exclude], bound

    def _nearest(
        self, queries: np.ndarray, count: int, conditions: list[str]
    ) -> tuple[list[dict], float]:
        """Return rows of people, and the bound as in `candidates`."""
        found: dict[int, dict] = {}
        bound = -np.inf
        for query in queries:
            hits: list[dict] = []
            more = True
            while more and len(hits) < count:
                # The best row of each of these tracklets has been found.
                seen = sorted({hit["tracklet"] for hit in hits})
                further = [f"tracklet not in {seen}"] if seen else []
                limit = min(count - len(hits), LIMIT)
                page = self._search(query, limit, " and ".join(conditions + further))
                hits, more = hits + page, len(page) == limit
            if more:
                bound = max(bound, hits[-1]["similarity"])
            found |= {hit["id"]: hit for hit in hits}
        return list(found.values()), bound

    def _search(self, query: np.ndarray, limit: int, filter: str) -> list[dict]:
        parameters = {"HNSW": {"ef": max(64, limit)}, "IVF_": {"nprobe": 64}}
        (hits,) = self._call(
            "search",
            PEOPLE,
            [query.tolist()],
            filter=filter,
            limit=limit,
            output_fields=["source", "tracklet", "time", "box", "score", "vector"],
            search_params={"metric_type": "IP", "params": parameters.get(self.kind[:4], {})},
            consistency_level="Strong",
        )
        return [hit["entity"] | {"id": hit["id"], "similarity": hit["distance"]} for hit in hits]

    def _sources_of(self, people: Sequence[dict]) -> dict[int, dict]:
        """Return the visible versions to which these people belong."""
        rows = self._of(SOURCES, "id", {person["source"] for person in people})
        rows = self._of(SOURCES, "path", {row["path"] for row in rows})
        return {row["id"]: row for row in visible(rows)}

    def row_of(self, path: Path) -> dict | None:
        """Return the row of a source's visible version. The ids of its people follow its own id."""
        return next(iter(visible(self._of(SOURCES, "path", [quoted(path)]))), None)

    def pictured(
        self, tracklets: Sequence[int], person_filter: PersonFilter | None = None
    ) -> dict[int, Person]:
        """Return {}: only local indexes have pictures of live cameras."""
        return {}

    def in_scene(self, path: Path, time: float | None) -> list[Person]:
        """Return the people in a picture (time None), or in a video's frame at that second."""
        if not (version := self.row_of(path)):
            return []
        at = f" and time == {NONE if time is None else time!r}"
        rows = self._of(PEOPLE, "source", [version["id"]], at)
        return [_person(row, version) for row in sorted(rows, key=lambda row: row["id"])]

    def spans(self, tracklets: Sequence[int]) -> dict[int, tuple[float, float]]:
        """Return the first and last second of each of these tracklets that belongs to a video or a
        camera."""
        times: dict[int, list[float]] = {}
        for row in self._of(
            PEOPLE, "tracklet", tracklets, f" and time != {NONE}", ["tracklet", "time"]
        ):
            times.setdefault(row["tracklet"], []).append(row["time"])
        return {tracklet: (min(some), max(some)) for tracklet, some in times.items()}

    def count(self) -> int:
        """Return the number of people, including those of unfinished sources."""
        return self._count(PEOPLE)

    def known(self, hidden: bool = False) -> list[IndexedSource]:
        """Return every visible source, in order of path."""
        rows = sorted(visible(self._all(SOURCES)), key=lambda row: unquote_to_bytes(row["path"]))
        return [
            IndexedSource(
                source_of(row),
                row["samples"],
                _second(row["until"]),
                True,
                row["note"],
                row["people"],
            )
            for row in rows
        ]

    def version(self, path: Path) -> tuple[int, int] | None:
        """Return size and modification time that a source had when it was read; None for an unknown
        source."""
        row = self.row_of(path)
        return (row["bytes"], row["changed"]) if row else None

    def read_until(self, path: Path) -> float:
        """Return the second of the last sample of a video or a camera; 0 for an unknown source."""
        row = self.row_of(path)
        return max(row["until"], 0.0) if row else 0.0


def open_people(address: Address, origin: Origin | None = None) -> MilvusPeople:
    """Open an index for searching.

    Raises:
        UserError: if there is none, or it was made with another network than `origin`.
    """
    if address.lite and not Path(address.uri).exists():
        raise UserError(f"--index {address}: {NO_INDEX}")
    people = MilvusPeople(address)
    if not people.exists():
        raise UserError(f"--index {people.address}: {NO_INDEX}")
    check_same(people.origin, origin, people.address)
    return people


def _conditions(person_filter: PersonFilter | None) -> list[str]:
    """Return filter expressions for PEOPLE that select the people of the filter."""
    if person_filter is None:
        return []
    conditions = []
    if person_filter.cameras:
        conditions.append(
            f"camera in {json.dumps([quoted(name) for name in person_filter.cameras])}"
        )
    if person_filter.after is not None or person_filter.before is not None:
        conditions.append(f"clock >= {max(person_filter.after or 0.0, 0.0)}")
    if person_filter.before is not None:
        conditions.append(f"clock <= {person_filter.before}")
    return conditions


def quoted(path: Path | str) -> str:
    """Return a path or name as ASCII text that needs no escapes in a filter."""
    return quote(os.fsencode(path), safe="/ ")


def _path(row: dict) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(row["path"])))


def _second(value: float) -> float | None:
    return None if value == NONE else value


def source_of(row: dict) -> Source:
    return Source(_path(row), row["bytes"], row["changed"], _second(row["every"]))


def rank_of(row: dict) -> tuple[int, int]:
    return row["epoch"], row["id"]


def visible(rows: Iterable[dict]) -> list[dict]:
    """Return the visible version of each path."""
    finished = (row for row in rows if row["finished"])
    return list({row["path"]: row for row in sorted(finished, key=rank_of)}.values())


def _person(row: dict, version: dict) -> Person:
    x1, y1, x2, y2 = row["box"]
    embedding = np.array(row["vector"], np.float32)
    place = _path(version), _second(row["time"]), (x1, y1, x2, y2)
    return Person(row["id"], *place, row["score"], row["tracklet"], embedding)

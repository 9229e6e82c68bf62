"""Adding of people to an index in Milvus, from several machines at the same time.

To claim a source, a writer inserts an unfinished version of it, and reads the versions of the same
path back with strong consistency. If another living writer has claimed the path too, it withdraws
and tries again later. A version is deleted only after a finished one of a higher epoch has replaced
it, or when its source is removed. Therefore a writer can stop at any moment, or continue after
others have replaced it, and no source is ever visible in part or twice.
"""

import json
import random
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.distributed import ranks
from engine.index.local import check_same
from engine.index.milvus import (
    IDS,
    IN_FILTER,
    NONE,
    PEOPLE,
    SOURCES,
    WRITERS,
    Address,
    MilvusPeople,
    open_people,
    quoted,
    rank_of,
    source_of,
    visible,
)
from engine.index.records import Origin, Sample, Source, camera_name, camera_of
from engine.index.tracklets import Tracklets
from utils.errors import UserError

EXACT = "FLAT"
LITE_KINDS = ("FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8")  # others fail after a restart
INSERTED = 5_000  # rows in one message, which has at most 64 MB
LEASE = 30.0  # seconds without a heartbeat after which a writer counts as failed
BEATS = 6  # heartbeats in the time of a lease
CLAIMED = 64  # pictures claimed together
GONE = 0  # the owner of a version that was removed


@dataclass
class Version:
    """A version that this process writes.

    Attributes:
        row: its row in SOURCES.
        tracklets: those of its last samples.
    """

    row: dict[str, Any]
    tracklets: Tracklets = field(default_factory=Tracklets)


class MilvusWriter(MilvusPeople):
    """The people of one database, who can be added and removed."""

    def __init__(self, address: Address):
        super().__init__(address)
        self.owner = random.randrange(1, IDS)
        self._own: dict[Source, Version] = {}
        self._beats: dict[int, tuple[int, float]] = {}
        self._rows: list[dict[str, Any]] = []
        self._finished: list[dict[str, Any]] = []
        self._changing = False

    # --- the collections ---

    def create(self, width: int, kind: str) -> None:
        """Create the collections that do not exist."""
        types = self._milvus.DataType
        whole, real, text = types.INT64, types.DOUBLE, types.VARCHAR
        person = {"source": whole, "tracklet": whole, "time": real, "score": real, "box": real}
        person |= {"camera": text, "clock": real}
        version = {"path": text, "bytes": whole, "changed": whole, "every": real, "epoch": whole}
        version |= {"owner": whole, "finished": real, "samples": whole, "until": real}
        version |= {"note": text, "people": whole}
        self._create(PEOPLE, person, width, ("source", "tracklet", "camera"), kind)
        self._create(SOURCES, version, 2, ("path",))
        self._create(WRITERS, {"beat": whole, "origin": text}, 2, ())

    def _create(self, name: str, fields: dict, width: int, inverted: Sequence, kind=EXACT) -> None:
        if name in self._call("list_collections"):
            return
        types, schema = self._milvus.DataType, self.client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        for field_name, type in fields.items():
            options: dict[str, Any] = {"max_length": 65_535} if type == types.VARCHAR else {}
            if field_name == "box":
                options, type = {"element_type": type, "max_capacity": 4}, types.ARRAY
            schema.add_field(field_name, type, **options)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=width)
        indexes = self.client.prepare_index_params()
        self._add_index(indexes, kind)
        for field_name in inverted:
            indexes.add_index(field_name, index_type="INVERTED")
        options = {"schema": schema, "index_params": indexes, "consistency_level": "Strong"}
        self._call("create_collection", name, **options)

    def _add_index(self, indexes: Any, kind: str) -> None:
        """Add the index of the vectors.

        Raises:
            UserError: if the kind is unknown, or its parameters are not numbers.
        """
        name, *values = kind.split(",")
        parameters = dict(value.partition("=")[::2] for value in values)
        if (self.address.lite and name not in LITE_KINDS) or not all(
            map(str.isdigit, parameters.values())
        ):
            raise UserError(
                f"--kind {kind}: expected {', '.join(LITE_KINDS)}, with parameters as in HNSW,M=32"
            )
        numbers = {key: int(value) for key, value in parameters.items()}
        needed = {"HNSW": {"M": 32, "efConstruction": 200}, "IVF_": {"nlist": 1024}}
        indexes.add_index(
            "vector", index_type=name, metric_type="IP", params=needed.get(name[:4], {}) | numbers
        )

    def change_kind(self, kind: str) -> None:
        """Rebuild the index of the vectors as another kind."""
        indexes = self.client.prepare_index_params()
        self._add_index(indexes, kind)
        self._call("release_collection", PEOPLE)
        self._call("drop_index", PEOPLE, "vector")
        self._call("create_index", PEOPLE, indexes)
        self._call("load_collection", PEOPLE)

    # --- this writer and others ---

    def sign_in(self, origin: Origin) -> None:
        """Register this writer.

        Raises:
            UserError: if the index was made with another network, also if that happens at this
                moment.
        """
        text = json.dumps([origin.name, origin.settings, origin.probe.astype(float).tolist()])
        self._writer = self._row(self.owner, beat=1, origin=text)
        self._call("insert", WRITERS, [self._writer])
        try:
            for made in self._origins():
                check_same(made, origin, self.address)
        except UserError:
            self._call("delete", WRITERS, ids=[self.owner])
            raise

    def beat(self, end: bool = False) -> None:
        """Record that this writer is running, or that it has ended."""
        self._writer["beat"] = 0 if end else self._writer["beat"] + 1
        self._call("upsert", WRITERS, [self._writer])

    def _beats_of(self, owners: Collection[int]) -> dict[int, int]:
        rows = self._of(WRITERS, "id", owners)
        return dict.fromkeys(owners, 0) | {row["id"]: row["beat"] for row in rows}

    def _dead(self, owners: Collection[int]) -> set[int]:
        """Return the writers that have ended, or have not recorded a beat for LEASE seconds.

        The time is that of this machine's clock.
        """
        now, dead = time.monotonic(), set()
        for owner, beat in self._beats_of(owners).items():
            if self._beats.get(owner, (None,))[0] != beat:
                self._beats[owner] = beat, now
            if not beat or self.address.lite or now - self._beats[owner][1] >= LEASE:
                dead.add(owner)  # Milvus Lite: one process has opened the file
        return dead

    def portions(self, sources: Sequence[Source]) -> Iterator[list[Source]]:
        """Yield sources that this process has claimed, until living writers have claimed all
        others."""
        left = list(sources)
        while left:
            random.shuffle(left)
            pictures = [source for source in left if source.every is None]
            parts = [pictures[i : i + CLAIMED] for i in range(0, len(pictures), CLAIMED)]
            parts += [[source] for source in left if source.every is not None]
            left = []
            for part in parts:
                won, held = self._claim(part)
                left += held
                if won:
                    yield won
            if left and self._all_live(left):
                return

    def _all_live(self, held: Sequence[Source]) -> bool:
        """Wait until the owners of these sources have all recorded another beat, or one of them is
        dead."""
        rows = self._of(SOURCES, "path", map(text_of, held), " and finished == 0")
        owners = {row["owner"] for row in rows} - {self.owner}
        before = self._beats_of(owners)
        while not self._dead(owners):
            if all(self._beats[owner][0] != before[owner] for owner in owners):
                return True
            time.sleep(LEASE / BEATS)
        return False

    def _claim(self, sources: Sequence[Source]) -> tuple[list[Source], list[Source]]:
        """Claim sources. Return those that were claimed, and those that other writers own."""
        rows, done, held = self._state(sources)
        tried = [source for source in sources if source not in done | held]
        for source in tried:
            epochs = [row["epoch"] for row in rows if row["path"] == text_of(source)]
            self._own[source] = Version(self._new_version(source, max(epochs, default=0) + 1))
        if tried:
            self._call("insert", SOURCES, [self._own[source].row for source in tried])
        _, done, taken = self._state(tried)  # by writers that claimed them at the same time
        lost = done | taken
        self._delete([self._own.pop(source).row["id"] for source in lost])
        return [source for source in tried if source not in lost], [*held, *taken]

    def _new_version(self, source: Source, epoch: int) -> dict:
        every = NONE if source.every is None else source.every
        file = {"path": text_of(source), "bytes": source.bytes, "changed": source.changed}
        state = {"finished": 0.0, "samples": 0, "until": NONE, "note": "", "people": 0}
        claim = {"every": every, "epoch": epoch, "owner": self.owner}
        return self._row(random.randrange(1, IDS), **file, **claim, **state)

    def _state(self, sources: Sequence[Source]) -> tuple[list[dict], set[Source], set[Source]]:
        """Return the rows of the sources' paths, the finished sources, and those that other living
        writers own."""
        rows = self._of(SOURCES, "path", map(text_of, sources))
        unfinished = [row for row in rows if not row["finished"]]
        others = {row["owner"] for row in unfinished} - {GONE, self.owner}
        live = others - self._dead(others)
        held = {row["path"] for row in unfinished if row["owner"] in live}
        done = {source_of(row) for row in visible(rows)} & set(sources)
        return rows, done, {s for s in sources if text_of(s) in held} - done

    # --- adding and removing ---

    def add(self, source: Source, samples: Iterable[Sample], finished=True, note="") -> None:
        """Add the next samples of a source; link people in consecutive ones, as People.add.

        Raises:
            UserError: if an embedding is not finite, or another program adds this source.
        """
        if source not in self._own and not self._claim([source])[0]:
            raise UserError(f"--index {self.address}: another process is adding {source.path}")
        version = self._own[source]
        for sample in samples:
            self._add_sample(source, version, sample)
        version.row["note"] = note
        if finished:
            self._finished.append(self._own.pop(source).row)
        if not self._changing:
            self._flush()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Collect what is added within the context, and send it at the end."""
        self._changing = True
        try:
            yield
        finally:
            self._changing = False
        self._flush()

    def _add_sample(self, source: Source, version: Version, sample: Sample) -> None:
        people, embeddings = sample.people, sample.people.weighted_embeddings
        if not embeddings.isfinite().all():
            raise UserError(f"{self.address}: expected finite embeddings, found NaN or infinity")
        row, linked = version.row, [None] * len(people.boxes)
        ids = range(row["id"] + 1 + row["people"], row["id"] + 1 + row["people"] + len(linked))
        if sample.time is not None:
            linked = version.tracklets.link(sample.time, people)
        given = [id if number is None else number for number, id in zip(linked, ids)]
        if sample.time is not None:
            version.tracklets.add(sample.time, people, given)
        second = NONE if sample.time is None else sample.time
        clock = NONE if camera_of(source.path) is None else second
        place = {"source": row["id"], "camera": quoted(camera_name(source.path))}
        columns = people.boxes.tolist(), people.scores.tolist(), embeddings.numpy()
        self._rows += [
            {"id": id, "tracklet": tracklet, "box": box, "score": score, "vector": embedding}
            | {"time": second, "clock": clock, **place}
            for id, tracklet, box, score, embedding in zip(ids, given, *columns)
        ]
        row["until"], row["people"] = second, row["people"] + len(given)
        row["samples"] += 1

    def _flush(self) -> None:
        """Send people, then finished versions. Delete the versions that these replace."""
        rows, finished, self._rows, self._finished = self._rows, self._finished, [], []
        for start in range(0, len(rows), INSERTED):
            self._call("insert", PEOPLE, rows[start : start + INSERTED])
        if finished:
            now = time.time()
            self._call("upsert", SOURCES, [row | {"finished": now} for row in finished])
            self._sweep(self._of(SOURCES, "path", [row["path"] for row in finished]))

    def _sweep(self, rows: Sequence[dict]) -> None:
        """Delete the versions among `rows` that a visible version of the same path has replaced."""
        best = {row["path"]: row for row in visible(rows)}
        older = [r for r in rows if r["path"] in best and rank_of(r) < rank_of(best[r["path"]])]
        self._delete([row["id"] for row in older])

    def _delete(self, versions: Sequence[int]) -> None:
        for start in range(0, len(versions), IN_FILTER):
            some = list(versions[start : start + IN_FILTER])
            self._call("delete", PEOPLE, filter=f"source in {some}")
            self._call("delete", SOURCES, ids=some)

    def clean(self) -> None:
        """Delete the remains of killed writers: replaced and removed versions."""
        rows = self._all(SOURCES)
        self._sweep(rows)
        gone = [
            r["id"] for r in rows if r["owner"] == GONE or (self.address.lite and not r["finished"])
        ]
        self._delete(gone)

    def release(self) -> None:
        """Delete the versions that this process has claimed and not finished."""
        self._delete([version.row["id"] for version in self._own.values()])
        self._own.clear()

    def remove(self, paths: Iterable[Path]) -> int:
        """Remove sources and their people; return the number of sources removed."""
        rows = self._of(SOURCES, "path", map(quoted, paths))
        if rows:  # invisible first, so that no part of a source is seen
            self._call("upsert", SOURCES, [row | {"finished": 0.0, "owner": GONE} for row in rows])
        self._delete([row["id"] for row in rows])
        return len(visible(rows))

    @staticmethod
    def _row(id: int, **values) -> dict[str, Any]:
        """Return a row of a collection without vectors. Milvus requires a vector field in every
        collection."""
        return {"id": id, "vector": [0.0, 0.0], **values}


@contextmanager
def writing(
    address: Address, origin: Origin | None, kind: str | None = None
) -> Iterator[MilvusWriter]:
    """Open an index for changes. Other processes may change it too, except with Milvus Lite.

    Args:
        origin: the network; if there is no index, one is created. None: an index of any network is
            opened, and must exist.
        kind: as in HNSW or HNSW,M=32; None: as before, EXACT for a new index.
    """
    if origin is None:
        origin = open_people(address).origin
    people = MilvusWriter(address)
    if address.lite and ranks() > 1:
        raise UserError(f"--index {people.address}: expected one process, found {ranks()} ranks")
    people.create(len(origin.probe), kind or EXACT)
    people.sign_in(origin)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(people, ended), daemon=True)
    beating.start()
    try:
        if kind and kind != people.kind:
            people.change_kind(kind)
        people.clean()
        yield people
    finally:
        ended.set()
        beating.join()
        people.release()
        people.beat(end=True)


def _beat(people: MilvusWriter, ended: threading.Event) -> None:
    while not ended.wait(LEASE / BEATS):
        with suppress(UserError):  # the writer's own calls report it
            people.beat()


def text_of(source: Source) -> str:
    return quoted(source.path)

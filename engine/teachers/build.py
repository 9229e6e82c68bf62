"""The teacher of a run: a network, cached outputs, or both."""

from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from datasets.base import SearchDataset
from engine.checkpoint import load_teacher
from engine.distributed import from_first
from engine.teachers.choice import cached_reads, check_caching, needs_checkpoint, reid_teachers
from engine.teachers.sources import OwnTeacher, TeacherSource, read_reid_teacher
from engine.teachers.store import OutputStore
from engine.teachers.tables import fill, read_boxes, read_pictures
from models.cached_teacher import CachedEmbeddings, CachedLogits, CachedTeacher, tables_of
from models.distill import reads_of
from models.distill.cd import check_tables
from models.oim import OIM
from models.search_net import SearchNet
from utils.errors import UserError
from utils.states import state_digest

CACHE = "teachers.sqlite"  # in INPUT.DATA_ROOT


def build_teacher(
    cfg: CfgNode, dataset: SearchDataset, device: torch.device
) -> tuple[SearchNet | CachedTeacher, CfgNode]:
    """Build the teacher of a run. Missing outputs in the cache are computed first.

    Returns:
        The teacher, and a config that describes its outputs.

    Raises:
        UserError: if no term needs a teacher, or the teacher cannot be used.
    """
    check_caching(cfg)
    net, teacher_cfg = None, cfg.clone()
    if needs_checkpoint(cfg):
        net, teacher_cfg = load_teacher(cfg.DISTILLER.TEACHER_CKPT, device)
    cached = cached_reads(cfg)
    if not cached:
        if net is None:
            raise UserError(
                "DISTILLER.TERMS: expected at least one term, found none; train_base.py trains "
                "without a teacher"
            )
        return net, teacher_cfg
    live = net if reads_of(cfg.DISTILLER.TERMS) - cached else None
    embeddings, logits = _read(cfg, dataset, net, cached, device)
    if embeddings:
        teacher_cfg = teacher_cfg.clone()
        teacher_cfg.defrost()
        teacher_cfg.MODEL.EMBEDDING_SIZE = embeddings.people.shape[1]
    return CachedTeacher(embeddings, logits, live), teacher_cfg


def _read(
    cfg: CfgNode,
    dataset: SearchDataset,
    net: SearchNet | None,
    cached: set[str],
    device: torch.device,
) -> tuple[CachedEmbeddings | None, CachedLogits | None]:
    """Return the cached tables that the terms read."""
    embeddings = logits = None
    foreign = [read_reid_teacher(name, device) for name in reid_teachers(cfg)]
    cache = Cache(cfg, dataset)
    if "class_logits" in cached or not foreign:
        assert net
        if "embeddings" in cached and not foreign:
            check_tables(dataset.num_pids, net.oim)
        own = OwnTeacher(net, state_digest(net.state_dict()), cfg.DISTILLER.LD.CACHED_REGIONS)
        people, pictures = cache.tables(own)
        if "embeddings" in cached and not foreign:
            embeddings = CachedEmbeddings(people[:, :-2], net.oim)
        if "class_logits" in cached:
            logits = _logits(people[:, -2:], pictures, own.regions)
    if foreign:
        embeddings = _joined([cache.tables(source)[0] for source in foreign], dataset, cfg)
    cache.store.close()
    return embeddings, logits


class Cache:
    """The file with the cached outputs of a run's teachers."""

    def __init__(self, cfg: CfgNode, dataset: SearchDataset):
        path = Path(cfg.DISTILLER.CACHE_FILE or Path(cfg.INPUT.DATA_ROOT) / CACHE)
        option = "DISTILLER.CACHE_FILE"
        from_first(lambda: OutputStore(path, option).close())  # one rank creates it
        self.store = OutputStore(path, option)
        self.scenes, self.workers = dataset.train, cfg.INPUT.NUM_WORKERS
        self.data = dict(skip_damaged=cfg.INPUT.SKIP_DAMAGED, max_pixels=cfg.INPUT.MAX_PIXELS)

    def tables(self, source: TeacherSource) -> tuple[Tensor, Tensor]:
        """Return the values of all boxes and of all pictures. Missing ones are computed first."""
        keys = fill(self.scenes, source, self.store, self.workers, self.data)
        return read_boxes(keys, source, self.store), read_pictures(keys, source, self.store)


def _logits(people: Tensor, pictures: Tensor, count: int) -> CachedLogits:
    """Return the logits among the values of OwnTeacher."""
    boxes, plain, mirror = pictures.split([4 * count, 2 * count, 2 * count], 1)
    background = torch.stack([plain, mirror], 1)
    return CachedLogits(people, boxes.view(-1, count, 4), background.reshape(-1, count, 2))


def _joined(tables: list[Tensor], dataset: SearchDataset, cfg: CfgNode) -> CachedEmbeddings:
    """Concatenate the embeddings of several teachers, and scale them to unit length.

    An inner product of two people is then the mean of the teachers' similarities.
    """
    people = torch.cat(tables, 1) / len(tables) ** 0.5
    model = cfg.MODEL.OIM
    oim = OIM(dataset.num_pids, model.QUEUE_SIZE, people.shape[1], model.MOMENTUM, model.SCALE)
    pids = torch.cat(
        [
            torch.from_numpy(scene.pids * scene.people(cfg.INPUT.MIN_SCORE))  # 0: in no table
            for scene in dataset.train
        ]
    )
    return CachedEmbeddings(people, tables_of(people, pids, oim))

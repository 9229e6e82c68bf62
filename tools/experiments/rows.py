"""The rows of the benchmark: what is trained how, in the order in which it is trained."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from configs.defaults import load_cfg
from tools.experiments.runs import ALONE, Run, describe_run

CONFIGS = "configs/benchmark"
RUNS = "runs/benchmark"
SEEDS = (1, 2, 3)
MORE_SEEDS = (4, 5)  # of rows in a comparison that these leave open
TAUGHT = "resnet18_x05"  # the student that every method teaches
TUNING_SEED = 100


@dataclass(frozen=True)
class Row:
    """A student under a method.

    key: of its folder and of its results; method: as tools.compare names it; values: config values
    of its own; student: its config; base: the row that it is compared with.
    """

    key: str
    title: str
    method: str
    values: tuple[str, ...] = ()
    student: str = TAUGHT
    base: str = f"{TAUGHT}_alone"

    def run(self, seed: int) -> Run:
        values = ["OUTPUT_DIR", f"{RUNS}/{self.key}", *self.values]
        return describe_run(f"{CONFIGS}/{self.student}.yaml", values, self.method, seed)


@dataclass(frozen=True)
class Teacher:
    """Trained once, by SEEDS[0]; its last epoch teaches. converged: whether it has to be."""

    key: str
    title: str
    converged: bool
    values: tuple[str, ...] = ()

    def run(self) -> Run:
        """In RUNS/<key> itself, where the students' configs look for it."""
        path = f"{CONFIGS}/resnet50_base.yaml"
        own = ["OUTPUT_DIR", f"{RUNS}/{self.key}", *self.values]
        run = describe_run(path, own, ALONE, SEEDS[0])
        values = [*run.overrides, *own[:2]]
        return replace(run, overrides=values, cfg=load_cfg(path, values))


TEACHERS = [
    Teacher("teacher", "ResNet-50, the teacher", True),
    Teacher("weak_teacher", "ResNet-50, stopped early", False, ("SOLVER.MAX_EPOCHS", "4")),
]
STUDENTS = {
    TAUGHT: "ResNet-18(x0.5)",
    "resnet18": "ResNet-18",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v2_slim": "MobileNetV2, slim",
}
PLAIN = ("DISTILLER.DFD.NORMALIZE", "False")
CONSTANT = ("DISTILLER.CD.RANK_BY", "constant")
CONTRASTIVE = ("DISTILLER.CD.FORM", "contrastive")
TWICE = ("SOLVER.MAX_EPOCHS", "6", "SOLVER.MILESTONES", "[4]")
STOPPED = ("DISTILLER.STOP_EPOCH", "2")
WEAK = ("DISTILLER.TEACHER_CKPT", f"{RUNS}/weak_teacher/epoch_03.pth")

# By TUNING_SEED: the best of these learning rates is the one in configs/benchmark/_student.yaml.
TUNING = {
    rate: Row(f"rate_{rate}", f"learning rate {rate}", ALONE, ("SOLVER.BASE_LR", rate))
    for rate in ("0.0005", "0.001", "0.002", "0.004")
}
# Group -> its rows. In a group, all rows have a seed before any has the next.
GROUPS: dict[str, list[Row]] = {
    f"students: {student}": [
        Row(f"{student}_alone", f"{title}, alone", ALONE, (), student, f"{student}_alone"),
        Row(f"{student}_ddps", f"{title}, DDPS", "ddps", (), student, f"{student}_alone"),
    ]
    for student, title in STUDENTS.items()
} | {
    "methods": [
        Row("dfd", "DFD (FGD)", "dfd"),
        Row("ld", "LD (DKD, here also KD)", "ld"),
        Row("cd", "CD", "cd"),
        Row("dfd_ld", "DFD + LD", "dfd+ld"),
        Row("dfd_cd", "DFD + CD", "dfd+cd"),
        Row("ld_cd", "LD + CD", "ld+cd"),
        Row("pkd", "PKD", "pkd"),
        Row("pkd_ld_cd", "PKD + LD + CD", "pkd+ld+cd"),
        Row("reviewkd", "ReviewKD", "reviewkd"),
        Row("hint", "hint (FitNet)", "hint"),
        Row("rkd", "RKD", "rkd"),
        Row("kd_standardized", "LD, standardized logits", "kd_standardized"),
        Row("cd_contrastive", "CD, contrastive", "cd_contrastive"),
        Row("ddps_constant", "DDPS, CD ranked by a constant", "ddps", CONSTANT),
        Row("ddps_contrastive", "DDPS, CD contrastive", "ddps", CONTRASTIVE),
        Row("dfd_plain", "DFD, published sums", "dfd", PLAIN),
        Row("ddps_plain", "DDPS, DFD by published sums", "ddps", PLAIN),
    ],
    "why": [
        Row("alone_twice", "alone, twice as long", ALONE, TWICE),
        Row("ddps_stopped", "DDPS, in 2 of 3 epochs", "ddps", STOPPED),
        Row("ddps_weak", "DDPS under the teacher stopped early", "ddps", WEAK),
        Row("ddps_twice", "DDPS, twice as long", "ddps", TWICE, base="alone_twice"),
    ],
}
ROWS: dict[str, Row] = {row.key: row for rows in GROUPS.values() for row in rows}
# What is tested for a gain: every row over its base, and DDPS over every other method.
DDPS_OVER = [(ROWS[f"{TAUGHT}_ddps"], row) for row in GROUPS["methods"]]
COMPARISONS = [(row, ROWS[row.base]) for row in ROWS.values() if row.key != row.base] + DDPS_OVER

# Term -> whose settings it has here. None was tuned on this data.
SOURCES = {
    "dfd": "DDPS's release, which are FGD's paper's; at the strength that they have at full size",
    "ld": "DDPS's release",
    "cd": "DDPS's release; the contrastive form: ours, from before this benchmark",
    "pkd": "PKD's paper",
    "reviewkd": "DDPS's release",
    "kd": "ours, from before this benchmark",
    "hint": "ours, from before this benchmark",
    "rkd": "RKD's paper, as means in place of sums",
}


def in_order(rows: Collection[Row], seeds: tuple[int, ...]) -> Iterator[tuple[Row, int]]:
    """Every row with one seed before any with the next."""
    return ((row, seed) for seed in seeds for row in rows)

"""The rows of the benchmark: what is trained, and in which order."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from configs.defaults import load_cfg
from engine.teachers.choice import REID_TEACHER
from tools.experiments.methods import ALONE, title_of
from tools.experiments.runs import Run, describe_run

CONFIGS = "configs/benchmark"
RUNS = "runs/benchmark"
SEEDS = (1, 2, 3)
MORE_SEEDS = (4, 5)  # of both rows of a comparison that is undecided after SEEDS
STUDENT = "resnet18_x05"  # the student of every row that names no other
TUNING_SEED = 100


@dataclass(frozen=True)
class Row:
    """A student trained by a method.

    Attributes:
        key: name of its results and of its folder.
        student: name of its config.
        method: as in tools.compare.
        values: further KEY VALUE pairs.
        base: key of the row with which it is compared.
    """

    key: str
    title: str
    method: str
    values: tuple[str, ...] = ()
    student: str = STUDENT
    base: str = f"{STUDENT}_alone"

    def run(self, seed: int) -> Run:
        values = ["OUTPUT_DIR", f"{RUNS}/{self.key}", *self.values]
        return describe_run(f"{CONFIGS}/{self.student}.yaml", values, self.method, seed)


@dataclass(frozen=True)
class Teacher:
    """A teacher, trained once with the first seed. The checkpoint of its last epoch is used.

    Attributes:
        config: name of its config.
        seed: of its training.
        must_converge: whether no student is trained unless it has converged.
    """

    key: str
    title: str
    values: tuple[str, ...] = ()
    config: str = "resnet50_base"
    seed: int = SEEDS[0]
    must_converge: bool = False

    def run(self) -> Run:
        """Return its run, in the folder RUNS/<key> that the configs of the students name."""
        path = f"{CONFIGS}/{self.config}.yaml"
        own = ["OUTPUT_DIR", f"{RUNS}/{self.key}", *self.values]
        run = describe_run(path, own, ALONE, self.seed)
        values = [*run.overrides, *own[:2]]
        return replace(run, overrides=values, cfg=load_cfg(path, values))


def method_row(method: str, note: str = "") -> Row:
    """Return STUDENT trained by a method without further values."""
    return Row(method.replace("+", "_"), f"{title_of(method)}{note}", method)


EXPORTED = f"{RUNS}/teacher/epoch_17.onnx"  # the teacher, for CACHED
STUDENTS = {
    STUDENT: "ResNet-18(x0.5)",
    "resnet18": "ResNet-18",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v2_slim": "MobileNetV2, slim",
}
C4_STUDENTS = {"mobilenet_v2_c4": "MobileNetV2, C4"}
FPN_STUDENTS = ("mobilenet_v2", "mobilenet_v2_slim")  # of the same backbone
PLAIN = ("DISTILLER.DFD.NORMALIZE", "False")
CONSTANT = ("DISTILLER.CD.RANK_BY", "constant")
CONTRASTIVE = ("DISTILLER.CD.FORM", "contrastive")
TWICE = ("SOLVER.MAX_EPOCHS", "6", "SOLVER.MILESTONES", "[4]")
DECAYING = ("DISTILLER.DECAY", "['dfd']")
PRETRAINED = ("BACKBONE.WEIGHTS", "imagenet")  # all other rows start from random weights
STOPPED = ("DISTILLER.STOP_EPOCH", "2")
WEAK = ("DISTILLER.TEACHER_CKPT", f"{RUNS}/weak_teacher/epoch_03.pth")
BETTER = ("DISTILLER.TEACHER_CKPT", f"{RUNS}/resnet18_teacher/epoch_17.pth")

# Equal schedules: students with the epochs and the milestone of their teacher. The student and the
# teacher's forward pass are computed in bfloat16, in 0.86 (alone) and 0.63 (DDPS) of the time.
EQUAL_EPOCHS, EQUAL_MILESTONE = 18, 11
EQUAL_RATE = "0.002"  # the best of EQUAL_TUNING
HALF = ("SOLVER.AMP", "bf16")
TEACHER_HALF = ("DISTILLER.TEACHER_AMP", "bf16")
# Student -> times of its step with DDPS and of its teacher's step, as multiples of that of its step
# alone, in bfloat16 on one core. STUDENT and the ResNet-50: medians of 12 steps that were measured
# in turn. MobileNetV2 and the ResNet-18: means of trainings.
STEP_TIMES = {STUDENT: (1.54, 3.23), "mobilenet_v2": (1.19, 1.18)}

# Trained with TUNING_SEED; configs/benchmark/_student.yaml has the best of these learning rates.
TUNING = {
    rate: Row(f"rate_{rate}", f"learning rate {rate}", ALONE, ("SOLVER.BASE_LR", rate))
    for rate in ("0.0005", "0.001", "0.002", "0.004")
}


def equal_values(rate: str = EQUAL_RATE, epochs: int = EQUAL_EPOCHS) -> tuple[str, ...]:
    """Return the KEY VALUE pairs of a schedule.

    The learning rate falls after the same share of the epochs in all schedules. The network is
    evaluated at the end and two epochs before.
    """
    milestone = round(epochs * EQUAL_MILESTONE / EQUAL_EPOCHS)
    length = ("SOLVER.MAX_EPOCHS", str(epochs), "SOLVER.MILESTONES", f"[{milestone}]")
    period = ("SOLVER.EVAL_PERIOD", str(epochs - 2))
    return (*length, *period, "SOLVER.BASE_LR", rate, *HALF)


TEACHERS = [
    Teacher("teacher", "ResNet-50, the teacher", must_converge=True),
    Teacher("weak_teacher", "ResNet-50, stopped early", ("SOLVER.MAX_EPOCHS", "4")),
    Teacher("second_teacher", "ResNet-50, second seed", seed=SEEDS[1], must_converge=True),
    Teacher("resnet18_teacher", "ResNet-18", equal_values(), "resnet18", must_converge=True),
]
EQUAL_TEACHERS = ("teacher", "resnet18_teacher")  # of the students over as many epochs


def epochs_in_equal_time(student: str, teacher: bool = True) -> int:
    """Return for how many epochs a student alone can be trained in the time of DDPS.

    The number is even, so that the gain of the last two epochs is known.

    Args:
        teacher: whether the time of DDPS includes the training of the teacher.
    """
    ddps, training = STEP_TIMES[student]
    return 2 * round(EQUAL_EPOCHS * (ddps + training * teacher) / 2)


TAUGHT = (*equal_values(), *TEACHER_HALF)  # of a student that learns from a teacher


def equal_row(
    key: str,
    title: str,
    method: str = "ddps",
    values: tuple[str, ...] = (),
    student: str = STUDENT,
    base: str | None = None,
) -> Row:
    """Return a row of a student that is trained as long as its teacher.

    Args:
        base: key of the row with which it is compared. None: that of the student alone.
    """
    title = f"{STUDENTS[student]}, {EQUAL_EPOCHS} epochs, {title}"
    values = (equal_values() if method == ALONE else TAUGHT) + values
    base = base or f"equal_{student}_alone"
    return Row(f"equal_{key}", title, method, values, student, base)


def time_row(student: str, teacher: bool = True) -> Row:
    """Return the row of a student alone that is trained in the time of DDPS."""
    epochs = epochs_in_equal_time(student, teacher)
    key = f"equal_{student}_{'time' if teacher else 'step_time'}"
    title = f"{STUDENTS[student]}, {epochs} epochs, alone"
    return Row(key, title, ALONE, equal_values(epochs=epochs), student, key)


EQUAL_TUNING = {
    rate: Row(f"equal_rate_{rate}", f"learning rate {rate}", ALONE, equal_values(rate))
    for rate in ("0.001", "0.002", "0.004")
}


def student_rows(student: str, title: str) -> list[Row]:
    """Return the rows of a student alone and with DDPS."""
    alone = f"{student}_alone"
    return [
        Row(alone, f"{title}, alone", ALONE, (), student, alone),
        Row(f"{student}_ddps", f"{title}, DDPS", "ddps", (), student, alone),
    ]


# Name of a group -> its rows. All rows of a group are trained with one seed before the next seed.
GROUPS: dict[str, list[Row]] = {
    f"students: {student}": student_rows(student, title)
    for student, title in (STUDENTS | C4_STUDENTS).items()
} | {
    "methods": [
        method_row("dfd", " (FGD)"),
        method_row("ld", " (DKD, here also KD)"),
        *map(method_row, ["cd", "dfd+ld", "dfd+cd", "ld+cd", "pkd", "pkd+ld+cd", "reviewkd"]),
        *map(method_row, ["hint", "rkd", "rpn", "kd_standardized", "cd_contrastive"]),
        Row("ddps_constant", "DDPS, CD ranked by a constant", "ddps", CONSTANT),
        Row("ddps_contrastive", "DDPS, CD contrastive", "ddps", CONTRASTIVE),
        Row("dfd_plain", "DFD, published sums", "dfd", PLAIN),
        Row("ddps_plain", "DDPS, DFD as published sums", "ddps", PLAIN),
    ],
    "why": [
        Row("alone_twice", "alone, twice the epochs", ALONE, TWICE),
        Row("ddps_stopped", "DDPS in 2 of 3 epochs", "ddps", STOPPED),
        Row("ddps_weak", "DDPS, teacher stopped early", "ddps", WEAK),
        Row("ddps_twice", "DDPS, twice the epochs", "ddps", TWICE, base="alone_twice"),
    ],
}
GROUPS[f"equal: {STUDENT}"] = [
    equal_row(f"{STUDENT}_alone", "alone", ALONE),
    equal_row(f"{STUDENT}_ddps", "DDPS"),
    equal_row("better_teacher", "DDPS of ResNet-18", values=BETTER),
    time_row(STUDENT),
]
GROUPS |= {
    f"equal: {student}": [
        equal_row(f"{student}_alone", "alone", ALONE, student=student),
        equal_row(f"{student}_better", "DDPS of ResNet-18", values=BETTER, student=student),
    ]
    for student in ("mobilenet_v2_slim", "mobilenet_v2")
}
CHANGES = {  # of DDPS, that are tested with MobileNetV2
    "mobilenet_v2_contrastive": ("CD contrastive", CONTRASTIVE),
    "mobilenet_v2_decay": ("weight of DFD falls", DECAYING),
}
GROUPS["equal: mobilenet_v2"] += [
    equal_row(key, f"DDPS of ResNet-18, {title}", values=BETTER + values, student="mobilenet_v2")
    for key, (title, values) in CHANGES.items()
] + [
    equal_row("pretrained_alone", "ImageNet weights, alone", ALONE, PRETRAINED, "mobilenet_v2"),
    equal_row(
        "pretrained_better",
        "ImageNet weights, DDPS of ResNet-18",
        values=BETTER + PRETRAINED,
        student="mobilenet_v2",
        base="equal_pretrained_alone",
    ),
    time_row("mobilenet_v2", teacher=False),
    time_row("mobilenet_v2"),
]


def recipe(key: str, title: str, *values: str, method: str = "ddps") -> Row:
    """Return a change of DDPS over EQUAL_EPOCHS, trained with TUNING_SEED to choose a recipe."""
    return Row(f"recipe_{key}", title, method, TAUGHT + values, base="recipe_ddps")


RECIPES: dict[str, Row] = {
    row.key: row
    for row in [
        recipe("ddps", "DDPS"),
        recipe("rate", "learning rate 0.004", "SOLVER.BASE_LR", "0.004"),
        recipe(
            "share_fifth",
            "terms limited to a fifth of the gradient",
            "DISTILLER.GRADIENT_SHARE",
            "0.2",
        ),
        recipe("stopped", "terms stopped after two thirds", "DISTILLER.STOP_EPOCH", "12"),
        recipe("better_contrastive", "CD contrastive, teacher ResNet-18", *CONTRASTIVE, *BETTER),
        recipe(
            "better_decay",
            "weight of DFD falls over the epochs, teacher ResNet-18",
            *DECAYING,
            *BETTER,
        ),
        recipe(
            "better_rpn",
            "LD on the logits of the RPN too, teacher ResNet-18",
            *BETTER,
            method="ddps+rpn",
        ),
    ]
}


BOTH = [f"{RUNS}/{key}/epoch_17.pth" for key in ("teacher", "second_teacher")]
CACHED_LD_CD = ("DISTILLER.CD.CACHED", "True", "DISTILLER.LD.CACHED", "True")


def cached_row(
    key: str, title: str, method: str, values: tuple[str, ...], base: str = f"{STUDENT}_alone"
) -> Row:
    """Return a row of STUDENT with cached teachers."""
    return Row(f"cached_{key}", f"{STUDENTS[STUDENT]}, {title}", method, values, base=base)


# Rows of cached teachers, which are only trained if they are named. Their steps take about as long
# as those of the student alone.
CACHED: dict[str, Row] = {
    row.key: row
    for row in [
        cached_row("onnx", "3 epochs, CD of an ONNX file", "cd", (REID_TEACHER, EXPORTED)),
        cached_row("own", "3 epochs, LD and CD cached", "ld+cd", CACHED_LD_CD),
        cached_row("two", "3 epochs, CD of two teachers", "cd", (REID_TEACHER, str(BOTH))),
        cached_row(
            "equal",
            f"{EQUAL_EPOCHS} epochs, LD and CD cached",
            "ld+cd",
            equal_values() + CACHED_LD_CD,
            f"equal_{STUDENT}_alone",
        ),
    ]
}
ROWS: dict[str, Row] = {row.key: row for rows in GROUPS.values() for row in rows}
# (row, base) of every tested gain: every row over its base, DDPS over every other method, DDPS over
# the student alone in equal time, the C4 form over the same backbone with an FPN, DDPS with a
# change over DDPS, and the recipe over the student alone in equal time.
DDPS_OVER = [(ROWS[f"{STUDENT}_ddps"], row) for row in GROUPS["methods"]]
EQUAL_DDPS = ROWS["equal_mobilenet_v2_better"]
PLUS = ROWS["equal_mobilenet_v2_decay"]  # the recipe, configs/*/mobilenet_v2_ddps_plus.yaml
LONGER = [ROWS[f"equal_mobilenet_v2_{key}"] for key in ("step_time", "time")]
IN_EQUAL_TIME = [
    (ROWS[f"equal_{STUDENT}_ddps"], ROWS[f"equal_{STUDENT}_time"]),
    *((EQUAL_DDPS, row) for row in LONGER),
]
PLUS_IN_EQUAL_TIME = [(PLUS, row) for row in LONGER]
C4_OVER_FPN = [
    (ROWS[f"{c4}_{how}"], ROWS[f"{student}_{how}"])
    for c4 in C4_STUDENTS
    for student in FPN_STUDENTS
    for how in ("alone", "ddps")
]
OVER_BASE = [(row, ROWS[row.base]) for row in ROWS.values() if row.key != row.base]
OVER_DDPS = [(ROWS[f"equal_{key}"], EQUAL_DDPS) for key in CHANGES]
COMPARISONS = OVER_BASE + DDPS_OVER + IN_EQUAL_TIME + C4_OVER_FPN + OVER_DDPS + PLUS_IN_EQUAL_TIME
# The rows that are compared with their teacher.
OVER_TEACHER = [row for name, rows in GROUPS.items() if name.startswith("equal: ") for row in rows]

# Term -> source of its settings. None of them was tuned on this data.
SOURCES = {
    "dfd": "DDPS's release, equal to the paper of FGD; strength as at full size",
    "ld": "DDPS's release",
    "cd": "DDPS's release; contrastive form: this project, before this benchmark",
    "pkd": "paper of PKD",
    "reviewkd": "DDPS's release",
    "kd": "this project, before this benchmark",
    "hint": "this project, before this benchmark",
    "rkd": "paper of RKD, with means instead of sums",
    "rpn": "this project, as KD; never tuned",
}


def in_order(rows: Collection[Row], seeds: tuple[int, ...]) -> Iterator[tuple[Row, int]]:
    """Return all rows with one seed before all rows with the next seed."""
    return ((row, seed) for seed in seeds for row in rows)

"""Networks of other programs as functions of pictures: ONNX files, torch.export programs, timm."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.onnx_net import onnx_session
from engine.teachers.preparation import (
    FIELDS,
    OUTPUT,
    Preparation,
    check_input,
    crops_of,
    description_of,
    preparation_of,
    read_fields,
)
from models.timm_networks import REQUIREMENTS_TIMM, TIMM, create_timm
from utils.errors import UserError, first_of, reason_of
from utils.files import content_of, file_digest, open_file
from utils.logs import quiet_logs
from utils.optional import optional
from utils.states import state_digest

PROGRAMS = (".pt2",)  # of torch.export
BATCH = 64  # pictures at once, where a network takes any number


@dataclass(frozen=True)
class CropNetwork:
    """A network that converts pictures of people to embeddings.

    Attributes:
        where: the option and the file, for messages.
        digest: of the network and its preparation.
        prepare: converts pixels to the network's input.
        run: [N, 3, height, width] -> [N, D], or with further dimensions of length 1.
        batch: the only N that the network accepts; 0 for any.
        device: of its input.
    """

    where: str
    digest: str
    prepare: Preparation
    run: Callable[[Tensor], Tensor]
    batch: int
    device: torch.device

    def embed(self, images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Return unit embeddings [n_i, D] of the boxes [n_i, 4] of each image [3, H, W] uint8."""
        crops = [
            self.prepare(part)
            for image, given in zip(images, boxes)
            for part in crops_of(image.to(self.device), given)
        ]
        counts = [len(given) for given in boxes]
        return list(self._vectors(crops).split(counts))

    def length(self) -> int:
        """Return D, measured on a grey picture.

        Raises:
            UserError: if the network cannot be run, or its output is not an embedding.
        """
        grey = torch.full((3, *self.prepare.size), 128, dtype=torch.uint8, device=self.device)
        try:
            vectors = self._vectors([self.prepare(grey)])
        except UserError:
            raise
        except Exception as error:  # of the runtime
            raise UserError(f"{self.where}: cannot be run ({reason_of(error)})") from None
        return vectors.shape[1]

    def _vectors(self, crops: list[Tensor]) -> Tensor:
        size = self.batch or BATCH
        parts = [self._part(crops[i : i + size]) for i in range(0, len(crops), size)]
        return torch.cat(parts) if parts else torch.zeros(0, 0)

    def _part(self, crops: list[Tensor]) -> Tensor:
        count = len(crops)
        filled = crops + crops[:1] * (self.batch - count)
        vectors = self.run(torch.stack(filled))[:count].float()
        if vectors.dim() < 2 or vectors[0].numel() != vectors.shape[1]:
            raise UserError(
                f"{self.where}: expected an output of one embedding for each picture, found "
                f"{' x '.join(map(str, vectors.shape))} numbers for {count}"
            )
        if not vectors.isfinite().all():
            raise UserError(f"{self.where}: its embeddings are not finite")
        return F.normalize(vectors.flatten(1))


def read_crop_network(name: str, option: str, device: torch.device) -> CropNetwork:
    """Read a re-id network of another program.

    Args:
        name: a file .onnx or .pt2 with its description beside it, or timm:NAME.
        option: the config key or option that names it.

    Raises:
        UserError: if it is missing, damaged, or does not fit its description.
    """
    where = f"{option} {name}"
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), where, device)
    suffix, beside = Path(name).suffix, description_of(name)
    if suffix not in (".onnx", *PROGRAMS):
        raise UserError(
            f"{where}: expected a checkpoint of this project, an .onnx file, a program of "
            "torch.export (.pt2) or timm:NAME"
        )
    digest = file_digest(name, option)
    values = read_fields(beside, FIELDS | OUTPUT, where)
    load = _onnx if suffix == ".onnx" else _program
    run, shape = load(name, option, values["output"], device)
    prepare = preparation_of(values)
    batch = check_input(str(beside), shape, prepare.size)
    return CropNetwork(where, f"{digest} {prepare} {values['output']}", prepare, run, batch, device)


def picked(outputs: dict[Any, Any], output: str | int | None, where: str) -> Any:
    """Return the output with this name or number; for None, the only output.

    Raises:
        UserError: if there is no such output, or if there are several and none is named.
    """
    names = list(outputs)
    if isinstance(output, int) and output not in outputs and 0 <= output < len(names):
        output = names[output]
    if output is None and len(names) == 1:
        return outputs[names[0]]
    if output not in outputs:
        found = "several: " if output is None else f"{output!r}, and there are "
        raise UserError(
            f"{where}: output: expected one of the network's outputs, found "
            f"{found}{first_of(map(str, names), 9)}"
        )
    return outputs[output]


def _onnx(
    name: str, option: str, output: str | int | None, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], list]:
    """Return the function of an ONNX file, and the shape of its input."""
    session = session_of(name, option, device)
    source = one_input(session, f"{option} {name}")
    outputs = {one.name: one.name for one in session.get_outputs()}
    wanted = picked(outputs, output, str(description_of(name)))

    def run(pictures: Tensor) -> Tensor:
        feed = {source.name: pictures.cpu().numpy()}
        return torch.from_numpy(session.run([wanted], feed)[0])

    return run, source.shape


def session_of(name: str, option: str, device: torch.device) -> Any:
    """Open an ONNX file in onnxruntime.

    Raises:
        UserError: if it is missing or damaged, or onnxruntime is missing.
    """
    with open_file(name, option) as file, content_of(f"{option} {name}", "an ONNX file"):
        data = file.read()
    return onnx_session(data, device, f"{option} {name}")


def one_input(session: Any, where: str) -> Any:
    """Return the only input of a session; raise UserError if there are several."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UserError(
            f"{where}: expected a network with one input, found "
            f"{first_of(one.name for one in inputs)}"
        )
    return inputs[0]


def _program(
    name: str, option: str, output: str | int | None, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], list]:
    """Return the function of a torch.export program, and the shape of its input."""
    where = f"{option} {name}"
    with open_file(name, option) as file, content_of(where, "a program of torch.export"):
        with quiet_logs():  # the traceback of torch's first attempt at a damaged or older file
            program = torch.export.load(file)
        module = program.module().to(device)
    users = set(program.graph_signature.user_inputs)
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in users]
    if len(inputs) != 1:
        raise UserError(f"{where}: expected a network with one input, found {len(inputs)}")

    @torch.no_grad()
    def run(pictures: Tensor) -> Tensor:
        found = module(pictures.to(device))
        if isinstance(found, Tensor):
            found = [found]
        named = found if isinstance(found, dict) else dict(enumerate(found))
        return picked(named, output, str(description_of(name))).cpu()

    return run, list(inputs[0].shape)


def _timm(name: str, where: str, device: torch.device) -> CropNetwork:
    """Return a function that computes the features before the classifier of a pretrained timm
    network."""
    timm = optional("timm", where, REQUIREMENTS_TIMM)
    net = create_timm(where, name, pretrained=True, num_classes=0).eval().to(device)
    data = timm.data.resolve_model_data_config(net)
    prepare = Preparation(tuple(data["input_size"][1:]), "rgb", data["mean"], data["std"])

    @torch.no_grad()
    def run(pictures: Tensor) -> Tensor:
        return net(pictures).cpu()

    return CropNetwork(
        where, f"{state_digest(net.state_dict())} {prepare}", prepare, run, 0, device
    )

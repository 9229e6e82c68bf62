"""The part of a checkpoint that continues the training: weights, optimizer, random generators."""

from torch import nn

from engine.distributed import from_all, rank
from engine.training.generators import generator_states, restore_generators
from engine.training.train_step import TrainStep
from models.search_net import SearchNet
from utils.states import load_optimizer, load_scaler, load_state


def collect(net: SearchNet, terms: nn.Module, train_step: TrainStep) -> dict:
    """Return the state of a run. Every rank must call this, since each has its own generators.

    Args:
        terms: the distillation terms; without distillation, an empty module.
    """
    return {
        "model": net.state_dict(),
        "terms": terms.state_dict(),
        "optimizer": train_step.optimizer.state_dict(),
        "scaler": train_step.scaler.state_dict(),
        "generators": from_all(generator_states(train_step.device)),
    }


def restore(
    saved: dict, net: SearchNet, terms: nn.Module, train_step: TrainStep, where: str
) -> None:
    """Restore the result of `collect`.

    Args:
        where: the path of the checkpoint, for messages.

    Raises:
        UserError: if the state does not fit the run.
    """
    load_state(net, saved["model"], where)
    load_state(terms, saved["terms"], f"{where} (distillation terms)")
    load_optimizer(train_step.optimizer, saved["optimizer"], where)
    load_scaler(train_step.scaler, saved["scaler"], where)
    if rank() < len(saved["generators"]):
        restore_generators(saved["generators"][rank()], train_step.device, where)

"""One of two processes under DistributedDataParallel; run by `test_data_parallel`.

Every way to wrap is trained beside a plain twin whose gradients are averaged by hand.
"""

import json
import pathlib
import sys

import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import secateur
from secateur.structure import Decision
from secateur.training import Session, attach
from tests.structures import residual
from tests.training.scripted import Scripted, labels_of

STEPS = 9
DECISIONS = {
    2: Decision(units={0: torch.tensor([1]), 2: torch.tensor([0, 4])}),
    4: Decision(layers=(1,)),
    6: Decision(units={1: torch.tensor([2])}),
}
WRAPPERS = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
    "views": {"gradient_as_bucket_view": True},
    "buckets": {"bucket_cap_mb": 0.0005},
}


def images(rank: int, step: int) -> Tensor:
    # Of their own, and not of the same number.
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(6 + 2 * rank, 3, 6, 6, generator=generator, dtype=torch.float64)


def net() -> nn.Module:
    return residual().model.double()


def begin(given: nn.Module) -> tuple[Session, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(given.parameters(), lr=0.1, momentum=0.9)
    method = Scripted(decisions=DECISIONS)
    example = torch.zeros(2, 3, 6, 6, dtype=torch.float64)
    return attach(given, optimizer, example, method=method, total_steps=100), optimizer


def update(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, step: int) -> None:
    """One step; keeps the graph of the last one alive meanwhile, as user code does."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images(rank, step)), labels_of(images(rank, step)))
    loss.backward()
    if not isinstance(model, DistributedDataParallel):
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()
    optimizer.step()


def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, step: int) -> None:
    """The same gradients in two halves, of which only the second is sent."""
    assert isinstance(model, DistributedDataParallel)
    whole = images(rank, step)
    parts = zip(whole.chunk(2), labels_of(whole).chunk(2), strict=True)
    optimizer.zero_grad()
    with model.no_sync():
        batch, labels = next(parts)
        (F.cross_entropy(model(batch), labels) / 2).backward()
    batch, labels = next(parts)
    (F.cross_entropy(model(batch), labels) / 2).backward()
    optimizer.step()


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(batch), labels_of(batch))


def weights(model: nn.Module) -> dict[str, list[float]]:
    return {name: p.detach().flatten().tolist() for name, p in model.named_parameters()}


def twin(rank: int) -> dict[str, list[float]]:
    model = net()
    _, optimizer = begin(model)
    for step in range(STEPS):
        update(model, optimizer, rank, step)
    return weights(model)


def wrapped(rank: int, way: str) -> dict[str, list[float]]:
    model = net()
    group = distributed.new_group([0, 1]) if way == "group" else None
    wrapper = DistributedDataParallel(model, process_group=group, **WRAPPERS.get(way, {}))
    if way == "hook":
        wrapper.register_comm_hook(None, allreduce_hook)
    _, optimizer = begin(model if way == "bare" else wrapper)
    for step in range(STEPS):
        update(wrapper, optimizer, rank, step)
    return weights(model)


def resumed(rank: int) -> dict[str, list[float]]:
    """A run that stops after five steps and goes on in a model that is attached bare."""
    first = net()
    session, optimizer = begin(first)
    wrapper = DistributedDataParallel(first)
    for step in range(5):
        update(wrapper, optimizer, rank, step)
    second = net()
    wrapper = DistributedDataParallel(second)
    again, continued = begin(second)
    again.load_state_dict(session.state_dict())
    second.load_state_dict(first.state_dict())
    continued.load_state_dict(optimizer.state_dict())
    for step in range(5, STEPS):
        update(wrapper, continued, rank, step)
    return weights(second)


def accumulated(rank: int, *, is_wrapped: bool) -> dict[str, list[float]]:
    model = net()
    wrapper = DistributedDataParallel(model) if is_wrapped else model
    _, optimizer = begin(wrapper)
    for module in model.modules():
        # Statistics of half a batch are not those of the whole.
        module.training = not isinstance(module, nn.BatchNorm2d)
    for step in range(STEPS):
        (accumulate if is_wrapped else update)(wrapper, optimizer, rank, step)
    return weights(model)


def searched(rank: int) -> dict[str, list[float]]:
    """Found by the default method, whose statistics depend on the size of batches."""
    model = net()
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    example = torch.zeros(2, 3, 6, 6, dtype=torch.float64)
    session = attach(wrapper, optimizer, example, target_macs=0.4, total_steps=60)
    for step in range(60):
        update(wrapper, optimizer, rank, step)
    assert session.settled
    return weights(model)


def pruned(rank: int) -> dict[str, object]:
    """Scores measured on data of their own, then a step of the whole."""
    model = net()
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    result = secateur.prune(
        wrapper,
        torch.zeros(2, 3, 6, 6, dtype=torch.float64),
        score="taylor",
        target_macs=0.5,
        data=[images(rank, 0)],
        loss=loss_of,
        optimizer=optimizer,
        fine_tune=lambda model: [update(model, optimizer, rank, step) for step in range(2)],
    )
    left = [mask.tolist() for mask in result.live.units]
    return {"weights": weights(model), "left": left, "scores": result.scores.tolist()}


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    found: dict[str, object] = {"twin": twin(rank)}
    for way in (*WRAPPERS, "group", "hook", "bare"):
        found[way] = wrapped(rank, way)
    found["resumed"] = resumed(rank)
    found["accumulated"] = accumulated(rank, is_wrapped=True)
    found["accumulated twin"] = accumulated(rank, is_wrapped=False)
    found["searched"] = searched(rank)
    found["pruned"] = pruned(rank)
    with pathlib.Path(f"{folder}/{rank}.json").open("w", encoding="utf-8") as file:
        json.dump(found, file)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

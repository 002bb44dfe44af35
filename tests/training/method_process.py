"""One of two processes that train together; run by `test_aofp` and `test_resrep`."""

import json
import pathlib
import sys

import torch
from torch import distributed, nn
from torch.nn import functional as F

from secateur.methods import AOFP, ResRep
from secateur.training import attach

METHODS = {
    "aofp": AOFP(tolerance=0.3, steps_per_half=3, warmup=2),
    "resrep": ResRep(target_macs=0.5),
}


def main(rank: int, folder: str, method: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(192, 3)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    session = attach(
        model,
        optimizer,
        torch.zeros(1, 3, 6, 6),
        method=METHODS[method],
        total_steps=80,
    )
    # Batches of their own, and not of the same size.
    generator = torch.Generator().manual_seed(rank)
    own = None
    for _ in range(60):
        images = torch.randn(6 + 2 * rank, 3, 6, 6, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(len(images)) % 3).backward()
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad)
        optimizer.step()
        if own is None:
            own = float(images.sum())
    events = [
        (event["step"], event["units"]) for event in session.events if event["event"] == "remove"
    ]
    weights = float(sum(p.double().abs().sum() for p in model.parameters()))
    with pathlib.Path(f"{folder}/{rank}.json").open("w", encoding="utf-8") as file:
        json.dump({"events": events, "weights": weights, "own": own}, file)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])

"""A comparison small enough for tests, and figures made up by hand."""

from secateur.compare import CompareConfig, Comparison, Result
from secateur.compare._cell import cells_of

MACHINE = {"system": "Linux", "processor": "x86_64", "device": "CPU", "threads": 1}
VERSIONS = {"secateur": "0.1", "torch": "2.11", "python": "3.11"}


def tiny_config(**changes):
    table = {
        "name": "tiny",
        "seeds": [3],
        "budgets": [0.5],
        "model": {"name": "digits-resnet", "width": 0.25},
        "data": {"name": "digits", "limit": 320},
        "training": {"epochs": 2, "batch_size": 64, "device": "cpu", "warmup_epochs": 0.5},
        "methods": {"magnitude": {"recipe": "prune", "score": "magnitude"}},
    }
    return CompareConfig.model_validate(table | changes)


def made_up(accuracy=0.9, macs=500.0, bill=(("training", 10.0, 1.0),), own=0.002, **changes):
    """A result against a full network of 1000 MACs, 100 parameters and 4 milliseconds."""
    costs = [{"what": what, "macs": m, "seconds": s} for what, m, s in bill]
    content = {
        "test_accuracy": accuracy,
        "macs": macs,
        "dense_macs": 1000.0,
        "params": 40,
        "dense_params": 100,
        "latency": {1: {"dense": 0.004, "own": own}},
        "bill": costs,
        "machine": MACHINE,
        "versions": VERSIONS,
        "run": "runs/x",
    }
    return Result.model_validate(content | changes)


def made_up_comparison(results, **changes):
    """A comparison with figures by (method, budget, seed); what is left out is not finished."""
    config = tiny_config(**changes)
    cells = cells_of(config)
    known = {(cell.method, cell.budget, cell.seed) for cell in cells}
    assert results.keys() <= known
    return Comparison(
        config=config,
        cells=tuple((cell, results.get((cell.method, cell.budget, cell.seed))) for cell in cells),
    )

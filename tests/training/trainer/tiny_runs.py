"""A run small enough for tests: a narrow network, 320 digits, seconds."""

import json

from safetensors.torch import load_file

from secateur.training.trainer import (
    Config,
    DataConfig,
    ModelConfig,
    SearchConfig,
    TrainingConfig,
    create_run,
    train,
)

WALL_CLOCK = ("seconds", "epoch_seconds", "train_seconds", "latency")
SEARCH = SearchConfig(price=1.5, patience=12, settle_at=0.7)


def tiny_config(search=SEARCH, **training):
    settings = {"epochs": 5, "batch_size": 64, "device": "cpu", "seed": 3} | training
    return Config(
        name="tiny",
        model=ModelConfig(name="digits-resnet", width=0.25),
        data=DataConfig(name="digits", limit=320),
        training=TrainingConfig(**settings),
        search=search,
    )


def ignore(progress):
    pass


def finished_run(config, run, on_progress=ignore):
    """Train without a stop; return the folder and the figures."""
    return train(create_run(config, run), on_progress=on_progress)


def events(run):
    """All events of a run, without what a clock measured."""
    lines = (run / "events.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in event.items() if k not in WALL_CLOCK} for event in found]


def weights(run):
    return load_file(run / "model.safetensors")

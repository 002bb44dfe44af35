"""Configs of comparisons: what is added, what is shared out, what is refused with which words."""

import re
import tomllib

import pytest

from secateur.compare import CompareConfig, read_compare_config
from secateur.compare._config import write_compare_config
from secateur.compare.recipes import schedules
from secateur.errors import UsageError
from tests.clean_room import ROOT
from tests.compare.tiny import tiny_config

SMALLEST = """
budgets = [0.5]
[model]
name = "digits-resnet"
[data]
name = "digits"
[training]
epochs = 6
"""


def read(tmp_path, more="", overrides=()):
    path = tmp_path / "config.toml"
    path.write_text(SMALLEST + more)
    return read_compare_config(path, overrides)


def test_the_controls_are_part_of_every_comparison(tmp_path):
    methods = read(tmp_path).all_methods
    assert list(methods) == ["dense", "narrowed", "random", "complexity-aware"]
    assert methods["random"].score == "random"


def test_a_control_can_have_other_settings(tmp_path):
    more = '[methods.complexity-aware]\nrecipe = "search"\nsettle_at = 0.5\n'
    assert read(tmp_path, more).all_methods["complexity-aware"].settle_at == 0.5


def test_an_override_reaches_the_settings_of_one_method(tmp_path):
    more = '[methods.mine]\nrecipe = "prune"\nscore = "taylor"\n'
    found = read(tmp_path, more, overrides=["methods.mine.rounds=3"]).methods["mine"]
    assert (found.score, found.rounds) == ("taylor", 3)


@pytest.mark.parametrize(
    ("fine_tune", "pretraining", "fine_tuning"),
    [
        ({}, 4, 2),  # a third of 6
        ({"epochs": 1}, 5, 1),
        ({"pretrain_epochs": 1}, 1, 5),
        ({"pretrain_epochs": 6, "epochs": 3}, 6, 3),  # more in all, as was asked for
    ],
)
def test_the_epochs_are_shared(fine_tune, pretraining, fine_tuning):
    config = tiny_config(training={"epochs": 6}, fine_tune=fine_tune)
    found = schedules(config.training, config.fine_tune)
    assert (found.pretraining.epochs, found.fine_tuning.epochs) == (pretraining, fine_tuning)
    assert found.scratch == config.training


def test_the_fine_tuning_has_the_learning_rate_of_the_training_or_its_own():
    training = {"epochs": 6, "lr": 0.1, "warmup_epochs": 1.5}
    config = tiny_config(training=training, fine_tune={"epochs": 2})
    found = schedules(config.training, config.fine_tune).fine_tuning
    assert (found.lr, found.warmup_epochs) == (0.1, 1.0)  # half of its epochs at most
    config = tiny_config(training=training, fine_tune={"lr": 0.02, "warmup_epochs": 0.25})
    found = schedules(config.training, config.fine_tune)
    assert (found.fine_tuning.lr, found.fine_tuning.warmup_epochs) == (0.02, 0.25)
    assert (found.pretraining.lr, found.pretraining.warmup_epochs) == (0.1, 1.5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            '[methods.taylor]\nrecipe = "prun"\n',
            "methods.taylor.recipe is 'prun' in FILE; allowed is one of 'dense', 'narrowed', "
            "'search', 'prune', 'aofp', 'resrep'.",
        ),
        ("[methods.taylor]\nrounds = 2\n", "methods.taylor.recipe is missing in FILE; add it."),
        (
            '[methods.taylor]\nrecipe = "prune"\n',
            "methods.taylor.score is missing in FILE; add it.",
        ),
        (
            '[methods.taylor]\nrecipe = "prune"\nscore = "taylor"\nround = 2\n',
            "methods.taylor.round in FILE is not a setting. Did you mean 'rounds'? "
            "[methods.taylor] knows recipe, score, rounds, batches.",
        ),
        (
            '[methods.taylor]\nrecipe = "prune"\nscore = "taylor"\nrounds = 0\n',
            "methods.taylor.rounds is 0 in FILE; allowed is a number of at least 1.",
        ),
        (
            '[methods.taylor]\nrecipe = "prune"\nscore = "tailor"\n',
            "[methods.taylor.score] in FILE: No score of units is called 'tailor': use",
        ),
        (
            '[methods.random]\nrecipe = "prune"\nscore = "taylor"\n',
            "methods.random is one of the controls of every comparison, so its score must be "
            "'random'; give your method another name",
        ),
        (
            '[methods.narrowed]\nrecipe = "dense"\n',
            "methods.narrowed is one of the controls of every comparison, so its recipe must be "
            "'narrowed'",
        ),
        ("[fine_tune]\nepochs = 6\n", "leaves 0 epochs of pre-training and 6 of fine-tuning"),
        ("seed = 1\n", "training.seed is set, but a comparison has several"),
        ("epoch = 1\n", "training.epoch in FILE is not a setting. Did you mean 'epochs'?"),
        (
            "[finetune]\n",
            "finetune in FILE is not a setting. Did you mean 'fine_tune'? The top of a "
            "comparison's config knows name, seeds, budgets,",
        ),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, more, message):
    with pytest.raises(UsageError) as raised:
        read(tmp_path, more)
    assert message.replace("FILE", str(tmp_path / "config.toml")) in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "methods.random.scor=taylor",
            "methods.random.recipe is missing in FILE",
        ),
        ("budgets=[1.0]", "budgets.0 is 1.0 in FILE; allowed is a number less than 1."),
        ("budgets=[]", "budgets is [] in FILE; allowed is a list of at least 1."),
        ("budgets=[0.5, 0.5]", "[budgets] in FILE: a value stands in it twice."),
        ("budgets=0.5", "budgets is 0.5 in FILE; allowed is a list."),
        ("seeds=[0, -1]", "seeds.1 is -1 in FILE; allowed is a number of at least 0."),
        ("seeds=[2, 2]", "[seeds] in FILE: a value stands in it twice."),
        ("methods=3", "methods is 3 in FILE; allowed is a section with settings."),
        ("model.weights=here", "model.weights is set, but a comparison trains every network from"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, override, message):
    with pytest.raises(UsageError) as raised:
        read(tmp_path, overrides=[override])
    assert message.replace("FILE", str(tmp_path / "config.toml")) in str(raised.value)


def test_what_is_written_is_what_is_read():
    methods = {"my method": {"recipe": "prune", "score": "taylor", "rounds": 3}}
    config = tiny_config(methods=methods, fine_tune={"lr": 0.01})
    table = tomllib.loads(write_compare_config(config))
    assert CompareConfig.model_validate(table) == config


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "configs/compare").glob("*.toml"), *(ROOT / "benchmarks").glob("*.toml")]),
    ids=lambda p: p.name,
)
def test_the_comparisons_of_the_project_are_right(path):
    config = read_compare_config(path)
    assert re.fullmatch(r"compare-[a-z-]+", config.name)

"""Configs: what is read, what is refused with which words, what is written down."""

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import UsageError
from secateur.training.trainer import (
    Config,
    DataConfig,
    ModelConfig,
    SearchConfig,
    TrainingConfig,
    check_config,
    read_config,
    write_config,
)
from tests.clean_room import ROOT

SMALLEST = """
[model]
name = "lenet5"
[data]
name = "digits"
[training]
epochs = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(SMALLEST)
    return path


def test_what_a_config_leaves_out_has_a_default(file):
    config = read_config(file)
    assert config.search is None
    assert config.training == TrainingConfig(
        epochs=3,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=1.0,
        label_smoothing=0.0,
        augment=True,
        precision="32-true",
        channels_last=False,
        device="auto",
        threads=None,
        seed=0,
    )


def test_an_override_is_written_as_in_the_file_or_without_quotes(file):
    overrides = ["training.lr=0.5", "model.name=resnet20", 'name="my run"', "search.price=0.3"]
    config = read_config(file, overrides)
    assert config.training.lr == 0.5
    assert config.model.name == "resnet20"
    assert config.name == "my run"
    assert config.search == SearchConfig(price=0.3)


def test_a_whole_number_serves_as_a_number(file):
    assert read_config(file, ["training.lr=1"]).training.lr == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=many", "training.epochs is 'many' in FILE; allowed is a whole number."),
        ("training.epochs=0", "training.epochs is 0 in FILE; allowed is a number of at least 1."),
        ("training.epochs=2.5", "training.epochs is 2.5 in FILE; allowed is a whole number."),
        ("training.lr=0", "training.lr is 0 in FILE; allowed is a number greater than 0."),
        ("training.lr=inf", "training.lr is inf in FILE; allowed is a finite number."),
        ("training.lr=true", "training.lr is True in FILE; allowed is a number."),
        (
            "training.momentum=1",
            "training.momentum is 1 in FILE; allowed is a number less than 1.",
        ),
        (
            "training.optimizer=sdg",
            "training.optimizer is 'sdg' in FILE; allowed is one of 'sgd' or 'adamw'.",
        ),
        ("training.augment=1", "training.augment is 1 in FILE; allowed is true or false."),
        ("model.name=3", "model.name is 3 in FILE; allowed is a text in quotes."),
        ("search=yes", "search is 'yes' in FILE; allowed is a section with settings."),
        (
            "model.widht=2",
            "model.widht in FILE is not a setting. Did you mean 'width'? "
            "[model] knows name, width, weights.",
        ),
        (
            "serach.price=2",
            "serach in FILE is not a setting. Did you mean 'search'? The top of a config knows "
            "name, model, data, training, search.",
        ),
        (
            "search.layer_share=0.5",
            "[search] in FILE: it needs exactly one of price, target_macs, target_params, and has "
            "none.",
        ),
        (
            "search={price = 1, target_macs = 0.5}",
            "[search] in FILE: it needs exactly one of price, target_macs, target_params, and has "
            "price and target_macs.",
        ),
        (
            "search.method=afop",
            "search.method is 'afop' in FILE; allowed is one of 'complexity-aware', "
            "'aofp', 'resrep'.",
        ),
        (
            'search={method = "aofp", price = 1}',
            "search.price in FILE is not a setting. [search] knows method, tolerance, "
            "masks_per_half, steps_per_half, warmup, min_units, settle_at, target_macs.",
        ),
        (
            "search={target_macs = 1.0}",
            "search.target_macs is 1.0 in FILE; allowed is a number less than 1.",
        ),
        (
            "training.warmup_epochs=3",
            "[training] in FILE: warmup_epochs is 3.0 but there are only 3 epochs.",
        ),
        (
            "name=../elsewhere",
            "[name] in FILE: it becomes part of a folder's name, so it must not contain / or \\.",
        ),
        (
            "training.epochs",
            "The override 'training.epochs' is not of the form section.name=value. "
            "Write for example training.epochs=10.",
        ),
        (
            "training..epochs=1",
            "The override 'training..epochs=1' is not of the form section.name=value. "
            "Write for example training.epochs=10.",
        ),
        (
            "a.b.c=1",
            "a in FILE is not a setting. The top of a config knows name, model, data, training, "
            "search.",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(file, override, message):
    with pytest.raises(UsageError) as raised:
        read_config(file, [override])
    assert str(raised.value) == message.replace("FILE", str(file))


def test_an_override_below_a_value_says_so(file):
    with pytest.raises(UsageError, match="takes 'name' for a section, but the config sets it to a"):
        read_config(file, ["name=x", "name.more=1"])


def test_every_wrong_setting_is_told_at_once(file):
    with pytest.raises(UsageError, match=r"training\.epochs .* training\.seed is -1 in"):
        read_config(file, ["training.epochs=0", "training.seed=-1"])


def test_a_missing_setting_is_named(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[model]\nname = "lenet5"\n[data]\nname = "digits"\n[training]\n')
    with pytest.raises(
        UsageError, match=re.escape(f"training.epochs is missing in {path}; add it.")
    ):
        read_config(path)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nosuch.toml cannot be read \(No such file or directory"):
        read_config(tmp_path / "nosuch.toml")
    path = tmp_path / "config.toml"
    path.write_text("[model\n")
    with pytest.raises(UsageError, match=r"config.toml is not TOML: .*\(at line 1, column 7\)"):
        read_config(path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_the_configs_of_the_project_are_right(path):
    config = read_config(path)
    assert config.name == path.stem
    assert len(path.read_text().splitlines()) <= 50


@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), min_size=1),
    root=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    seed=st.integers(0, 2**63 - 1),
    reference=st.none() | st.tuples(*[st.floats(1, 1e12)] * 2).map(list),
)
def test_what_is_written_is_what_is_read(name, root, lr, seed, reference):
    config = Config(
        name="x" + name,
        model=ModelConfig(name="a", width=0.5),
        data=DataConfig(name="b", root=root, download=True),
        training=TrainingConfig(epochs=3, lr=lr, seed=seed),
        search=SearchConfig(target_params=0.1, reference=reference),
    )
    assert check_config(tomllib.loads(write_config(config)), where="here") == config

"""Cells: which there are, and on what their keys depend."""

import pytest

from secateur.compare._cell import cells_of
from tests.compare.tiny import tiny_config

TRAINING = {"epochs": 6, "batch_size": 64, "device": "cpu"}


def keys(**changes):
    return {(c.method, c.budget, c.seed): c.key for c in cells_of(tiny_config(**changes))}


def test_every_method_meets_every_budget_and_seed_and_dense_every_seed():
    cells = cells_of(tiny_config(seeds=[0, 1], budgets=[0.5, 0.25]))
    assert len(cells) == 2 * (1 + 4 * 2)
    assert [c.title for c in cells[:3]] == [
        "dense, seed 0",
        "narrowed at 50 %, seed 0",
        "narrowed at 25 %, seed 0",
    ]
    assert len({cell.key for cell in cells}) == len(cells)
    assert {cell.base.training.seed for cell in cells} == {0, 1}


def test_equal_settings_give_equal_keys():
    assert keys() == keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "digits-resnet", "width": 0.5}},
        {"data": {"name": "digits", "limit": 300}},
        {"training": TRAINING | {"lr": 0.2}},
        {"training": TRAINING | {"epochs": 7}},
        {"seeds": [4]},
    ],
    ids=str,
)
def test_what_concerns_all_changes_every_key(changes):
    before = keys(training=TRAINING) if "training" in changes else keys()
    assert not set(before.values()) & set(keys(**changes).values())


@pytest.mark.parametrize(
    ("changes", "concerned"),
    [
        ({"fine_tune": {"lr": 0.01}}, ["magnitude", "random"]),
        ({"fine_tune": {"epochs": 1}}, ["magnitude", "random"]),
        (
            {"methods": {"magnitude": {"recipe": "prune", "score": "magnitude", "rounds": 2}}},
            ["magnitude"],
        ),
        (
            {
                "methods": {
                    "magnitude": {"recipe": "prune", "score": "magnitude"},
                    "complexity-aware": {"recipe": "search", "settle_at": 0.5},
                }
            },
            ["complexity-aware"],
        ),
        ({"budgets": [0.5, 0.25]}, []),
        ({"seeds": [3, 4]}, []),
        ({"name": "other"}, []),
    ],
    ids=str,
)
def test_a_setting_changes_the_keys_of_the_cells_it_concerns(changes, concerned):
    before, after = keys(training=TRAINING), keys(**({"training": TRAINING} | changes))
    assert sorted(name[0] for name, key in before.items() if after[name] != key) == concerned


def test_the_budget_is_part_of_the_key_where_there_is_one():
    before, after = keys(budgets=[0.5]), keys(budgets=[0.4])
    assert before["dense", None, 3] == after["dense", None, 3]
    assert before["narrowed", 0.5, 3] != after["narrowed", 0.4, 3]


def test_cells_of_a_seed_share_the_pretrained_network():
    cells = [c for c in cells_of(tiny_config(seeds=[0, 1])) if c.recipe.fine_tunes]
    assert {cell.method for cell in cells} == {"random", "magnitude"}
    assert len({cell.pretrained_key for cell in cells}) == 2  # seeds


def test_every_method_is_given_the_same_number_of_epochs_unless_told_otherwise():
    assert {cell.epochs for cell in cells_of(tiny_config(training=TRAINING))} == {6}
    more = {"pretrain_epochs": 6, "epochs": 3}
    cells = cells_of(tiny_config(training=TRAINING, fine_tune=more))
    assert {cell.method: cell.epochs for cell in cells}["magnitude"] == 9
    assert {cell.method: cell.epochs for cell in cells}["dense"] == 6

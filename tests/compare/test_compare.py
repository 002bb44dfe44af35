"""Whole comparisons: what runs, what does not run again, and what is written down."""

import csv
import json
import shutil

import pytest
import torch

from secateur.compare import Progress, compare
from secateur.compare.recipes import Ground, Job, factor_for
from secateur.compare.recipes._narrowed import _cut_evenly
from secateur.data import Split, in_memory_dataset
from secateur.errors import StorageError, UsageError
from secateur.training import trainer
from tests.compare.tiny import tiny_config

METHODS = {"dense", "narrowed", "random", "complexity-aware", "magnitude"}


def ignore(progress):
    pass


def results(comparison):
    """What does not depend on a clock, by method."""
    return {
        cell.method: (r.test_accuracy, r.macs, r.params, [c.macs for c in r.bill])
        for cell, r in comparison.finished
    }


def watch(patch):
    """Return a list that takes the names of the folders that are trained in from now on."""
    begun, train = [], trainer.train

    def watched(run, **options):
        begun.append(run.parent.name if run.parent.name != "runs" else run.name)
        return train(run, **options)

    patch.setattr(trainer, "train", watched)
    return begun


@pytest.fixture
def trainings(monkeypatch):
    """Names of the folders that are trained in from now on."""
    return watch(monkeypatch)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparisons") / "tiny"


@pytest.fixture(scope="module")
def first_trainings():
    return []


@pytest.fixture(scope="module")
def finished(folder, told, first_trainings):
    with pytest.MonkeyPatch.context() as patch:
        begun = watch(patch)
        comparison = compare(tiny_config(), folder, on_progress=told.append)
        first_trainings += begun
    return comparison


@pytest.fixture
def copy(finished, folder, tmp_path):
    """A folder of one's own in which everything is finished."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_every_cell_has_figures(finished):
    found = {cell.method: result for cell, result in finished.finished}
    assert found.keys() == METHODS
    dense = found["dense"]
    assert dense.macs_share == 1
    assert dense.params_share == 1
    assert all(0 < result.test_accuracy <= 1 for result in found.values())
    for name in METHODS - {"dense"}:
        assert found[name].macs_share == pytest.approx(0.5, abs=0.05), name
    assert {size for r in found.values() for size in r.latency} == {1, 64}


def test_every_training_is_on_the_bill(finished):
    """By hand: three forwards an image and epoch, at the size the network had."""
    found = {cell.method: result for cell, result in finished.finished}
    dense = found["dense"].macs
    images = 320
    assert [(c.what, c.macs) for c in found["dense"].bill] == [("training", 3 * images * 2 * dense)]
    narrowed = found["narrowed"]
    assert narrowed.total.macs == 3 * images * 2 * narrowed.macs
    for name in ("random", "magnitude"):
        before, pruning, after = found[name].bill
        assert (before.what, before.macs) == ("pre-training", 3 * images * dense)
        assert (after.what, after.macs) == ("fine-tuning", 3 * images * found[name].macs)
        # Neither score looks at an image.
        assert (pruning.what, pruning.macs) == ("pruning", 0)
    assert all(item.seconds > 0 for result in found.values() for item in result.bill)


def test_the_figures_are_those_of_the_saved_network(finished, folder):
    digits = trainer.load_data(trainer.open_run(folder / finished.finished[0][1].run))
    images = (digits.test.images.float() / 255 - digits.mean[0]) / digits.std[0]
    for cell, result in finished.finished:
        network, _ = trainer.load_network(folder / result.run)
        with torch.no_grad():
            hits = network(images).argmax(dim=1) == digits.test.labels
        assert hits.sum().item() / len(hits) == result.test_accuracy, cell.method
        assert sum(p.numel() for p in network.parameters()) == result.params


def test_no_cell_runs_twice_and_the_pretrained_network_is_trained_once(
    finished, copy, first_trainings, trainings
):
    kinds = sorted(name.split("-")[0] for name in first_trainings)
    assert kinds == ["dense", "narrowed", "pretrained", "prune", "prune", "search"]
    assert compare(tiny_config(), copy, on_progress=ignore) == finished
    assert trainings == []


def test_a_new_method_runs_alone(copy, trainings):
    methods = {"fresh": {"recipe": "prune", "score": "magnitude-l1"}}
    compare(tiny_config(methods=methods), copy, on_progress=ignore)
    assert [name.split("-")[0] for name in trainings] == ["prune"]


def test_a_cell_whose_file_is_gone_is_measured_again_and_not_trained(finished, copy, trainings):
    files = sorted((copy / "cells").iterdir())
    assert len(files) == len(METHODS)
    for file in files:
        file.unlink()
    assert results(compare(tiny_config(), copy, on_progress=ignore)) == results(finished)
    assert trainings == []


def test_a_comparison_that_was_stopped_goes_on_and_ends_with_the_same_figures(tmp_path, finished):
    class StopError(Exception):
        pass

    def stop_in(method, what):
        def on_progress(progress):
            run = progress.run
            if progress.cell.startswith(method) and progress.what == what and run.epoch:
                raise StopError

        return on_progress

    for method, what in (
        ("dense", "training"),
        ("random", "pre-training"),
        ("random", "fine-tuning"),
        ("complexity-aware", "training"),
    ):
        with pytest.raises(StopError):
            compare(tiny_config(), tmp_path, on_progress=stop_in(method, what))
    assert results(compare(tiny_config(), tmp_path, on_progress=ignore)) == results(finished)


def test_progress_counts_the_cells_and_names_the_work(finished, told):
    assert {type(progress) for progress in told} == {Progress}
    assert [p.finished for p in told] == sorted(p.finished for p in told)
    assert {p.cells for p in told} == {5}
    done = {p.what for p in told if p.cell == "magnitude at 50 %, seed 3"}
    assert done == {"pruning", "fine-tuning", "measuring"}  # random came first and pre-trained


def test_the_tables_hold_the_figures(finished, folder):
    lines = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert {line["method"] for line in lines} == METHODS
    found = {cell.method: result for cell, result in finished.finished}
    for line in lines:
        result = found[line["method"]]
        assert float(line["test_accuracy"]) == result.test_accuracy
        assert float(line["training_macs"]) == result.total.macs
        assert line["budget"] == ("" if line["method"] == "dense" else "0.5")
    document = json.loads((folder / "comparison.json").read_text())
    assert [row["method"] for row in document["rows"]] == [row.method for row in finished.rows]
    assert document["config"]["budgets"] == [0.5]
    assert len(document["cells"]) == 5


def test_a_damaged_cell_is_named(copy):
    file = next((copy / "cells").iterdir())
    file.write_text('{"kind": "something else"}')
    with pytest.raises(
        StorageError, match=rf"{file.name} is not the result of a cell \(kind: .*\)\. D"
    ):
        compare(tiny_config(), copy, on_progress=ignore)


@pytest.mark.parametrize("content", ['{"macs', "3", "{}"])
def test_a_damaged_bill_of_a_pruning_is_named_and_made_again_once_deleted(
    finished, copy, trainings, content
):
    bills = list(copy.glob("runs/prune-*/pruned/pruning.json"))
    for cell in copy.glob("cells/prune-*"):
        cell.unlink()
    for bill in bills:
        bill.write_text(content)
    with pytest.raises(StorageError, match=r"'random at 50 %.*pruning\.json does not say what the"):
        compare(tiny_config(), copy, on_progress=ignore)
    for bill in bills:
        bill.unlink()
    assert results(compare(tiny_config(), copy, on_progress=ignore)) == results(finished)
    assert trainings == []


def test_the_folder_of_a_run_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "config.toml").write_text("name = 'a run'\n")
    with pytest.raises(UsageError, match=r"holds config\.toml of something else"):
        compare(tiny_config(), tmp_path, on_progress=ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    assert (tmp_path / "config.toml").read_text() == "name = 'a run'\n"


def test_a_cell_that_cannot_be_worked_out_is_named_and_the_others_are_kept(tmp_path):
    config = tiny_config(budgets=[0.001])
    message = r"The cell 'random at 0.1 %, seed 3' could not be worked out. .* before are kept"
    with pytest.raises(UsageError, match=message):
        compare(config, tmp_path, on_progress=ignore)
    assert len(list((tmp_path / "cells").iterdir())) == 2  # dense, narrowed


@pytest.mark.real
def test_a_network_of_another_library_is_narrowed_family_by_family(tmp_path):
    model = {"name": "torchvision/squeezenet1_1"}
    data = {"name": "image-folder"}
    config = tiny_config(model=model, data=data)
    (cell,) = [cell for cell in _cells(config) if cell.method == "narrowed"]
    ground = Ground(cell.base)
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(4))
    ground.dataset = in_memory_dataset(
        "x", train=split, validation=split, test=split, class_names=tuple("abcd"), flip=False
    )
    job = Job(
        base=cell.base,
        schedules=cell.schedules,
        budget=0.5,
        ground=ground,
        folder=tmp_path,
        pretrained=tmp_path,
        on_run=lambda what, run: None,
    )
    network = _cut_evenly(job)
    again = _cut_evenly(job)
    assert trainer.count_macs(network, ground.image) / ground.macs == pytest.approx(0.5, abs=0.01)
    whole = dict(ground.network().named_parameters())
    shares = {
        name: parameter.shape[0] / whole[name].shape[0]
        for name, parameter in network.named_parameters()
        if parameter.ndim == 4 and not name.startswith("classifier")
    }
    assert max(shares.values()) - min(shares.values()) < 0.05
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def _cells(config):
    from secateur.compare._cell import cells_of

    return cells_of(config)


def _work_out(cell, out):
    from secateur.compare._work_out import work_out

    return work_out(cell, out, Ground(cell.base), lambda what, run: None)


def test_images_a_score_looks_at_are_on_the_bill(tmp_path):
    """Five batches of 64, forward and backward; the first layer needs no gradient of its input."""
    methods = {"taylor": {"recipe": "prune", "score": "taylor", "batches": 5}}
    cells = {cell.method: cell for cell in _cells(tiny_config(methods=methods))}
    result = _work_out(cells["taylor"], tmp_path)
    pruning = result.bill[1]
    assert 2.8 < pruning.macs / (320 * result.dense_macs) <= 3


def test_the_width_with_the_nearest_macs_is_found():
    """Oracle: every one of the 1024 factors is tried. MACs of widths that are whole numbers."""

    def macs(factor):
        return round(13 * factor) ** 2 + round(29 * factor)

    for target in (1, 37, 80, 81, 150, 197, 198):
        best = min(abs(macs(step / 1024) - target) for step in range(1, 1025))
        assert abs(macs(factor_for(macs, target)) - target) == best


def test_methods_that_narrow_while_training_goes_on_begin_with_the_same_trained_network(
    tmp_path, trainings
):
    methods = {name: {"recipe": name, "warmup": 0} for name in ("aofp", "resrep")}
    training = {"epochs": 12, "batch_size": 64, "device": "cpu", "warmup_epochs": 0.5}
    cells = _cells(tiny_config(methods=methods, training=training))
    for name in methods:
        (cell,) = [cell for cell in cells if cell.method == name]
        result = _work_out(cell, tmp_path)
        assert [item.what for item in result.bill] == ["pre-training", "fine-tuning"]
        assert result.macs < result.dense_macs
        if name == "resrep":
            assert 0.4 < result.macs / result.dense_macs <= 0.5
    assert len([run for run in trainings if "pretrained" in run]) == 1

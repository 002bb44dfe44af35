"""Whole runs: the files they leave, the events they tell, and the numbers in them."""

import math

import pytest
import torch
from torch.nn import functional as F

from secateur import data, models
from secateur.data import Batches
from secateur.errors import UsageError
from secateur.storage import load
from secateur.training.trainer import create_run, train
from tests.training.trainer.tiny_runs import events, finished_run, ignore, tiny_config, weights

STEPS = 25  # 5 epochs of 320 images in batches of 64


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def dense(folders):
    return finished_run(tiny_config(search=None), folders / "dense")


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def batches_on_the_side():
    """Step of every batch that went through the network without gradients while it trained."""
    return []


@pytest.fixture(scope="module")
def found(folders, told, batches_on_the_side):
    forward, step = models.DigitsResNet.forward, 0

    def watched(self, x):
        nonlocal step
        if self.training and len(x) == 64:
            step += torch.is_grad_enabled()
            batches_on_the_side.extend([] if torch.is_grad_enabled() else [step])
        return forward(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.DigitsResNet, "forward", watched)
        return finished_run(tiny_config(), folders / "found", told.append)


def build():
    return models.build("digits-resnet", num_classes=10, in_channels=1, image_size=8, width=0.25)


def test_dense_training_is_the_loop_one_would_write(dense):
    """Oracle: torch's own pieces, put together here."""
    digits = data.load("digits", limit=320)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    batches = Batches(digits, "train", 64, augment=digits.augment, generator=generator)
    step = 0
    for _ in range(5):
        for images, labels in batches:
            warm, rest = (step + 1) / 5, (1 + math.cos(math.pi * (step - 5) / 20)) / 2
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (warm if step < 5 else rest)
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    expected = model.state_dict()
    stored = weights(dense.run)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


def test_the_figures_of_the_end_are_those_of_the_stored_network(found):
    model = load(build, found.run).eval()
    images, labels = next(iter(Batches(data.load("digits", limit=320), "test", 450)))
    with torch.no_grad():
        logits = model(images)
    end = events(found.run)[-1]
    assert end["test_accuracy"] == (logits.argmax(dim=1) == labels).sum().item() / 450
    assert end["test_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert end["params"] == sum(p.numel() for p in model.parameters())
    assert found.params == end["params"] < found.params_before


def test_a_search_removes_something_and_every_count_agrees(found):
    told = events(found.run)
    kinds = [event["event"] for event in told]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("start") == kinds.count("end") == kinds.count("settle") == 1
    assert kinds.count("epoch") == 5
    assert "remove" in kinds
    start, end = told[0], told[-1]
    # The structure's own polynomial against torch's counter on the finished network.
    settle = next(event for event in told if event["event"] == "settle")
    assert settle["macs"] == end["macs"] == found.macs < found.macs_before == start["macs"]
    assert settle["params"] == end["params"]
    removals = [event for event in told if event["event"] == "remove"]
    assert end["removed_layers"] == [name for event in removals for name in event["layers"]] != []
    for family, (before, after) in end["widths"].items():
        gone = sum(len(event["units"].get(family, [])) for event in removals)
        # A family that only a removed layer held is gone with it.
        assert after == before - gone or (
            after == 0 and family.removesuffix(".conv1") in end["removed_layers"]
        )


def test_events_are_in_order_and_name_the_run(found):
    told = events(found.run)
    steps = [event["step"] for event in told]
    assert steps == sorted(steps)
    assert steps[-1] == STEPS
    start = told[0]
    assert (start["model"], start["data"], start["seed"]) == ("digits-resnet", "digits", 3)
    assert start["total_steps"] == STEPS
    assert start["machine"]["threads"] == torch.get_num_threads()
    step_events = [event for event in told if event["event"] == "step"]
    assert all(math.isfinite(event["loss"]) for event in step_events)
    # One line a step in so short a run; the step that settles says so before it.
    assert [event["step"] for event in step_events] == list(range(1, STEPS + 1))


def test_training_macs_are_three_forwards_of_the_network_as_it_was_and_what_was_measured(
    found, dense, batches_on_the_side
):
    # 320 images an epoch, 5 epochs; forward, and a backward pass of twice its work
    assert events(dense.run)[-1]["training_macs"] == 3 * 320 * 5 * dense.macs
    share, spent = 1.0, 0.0
    macs = events(found.run)[0]["macs"]
    shares = {e["step"]: e["macs_share"] for e in events(found.run) if e["event"] == "step"}
    for step in range(1, STEPS + 1):
        spent += (3 + batches_on_the_side.count(step)) * 64 * macs * share
        share = shares[step]
    assert batches_on_the_side
    assert events(found.run)[-1]["training_macs"] == pytest.approx(spent)


def test_the_run_folder_holds_what_it_promises(found):
    assert {path.name for path in found.run.iterdir()} == {
        "checkpoint",
        "config.toml",
        "events.jsonl",
        "model.safetensors",
        "report.html",
        "structure.json",
    }
    assert found.report == found.run / "report.html"


def test_latency_is_measured_at_batch_1_and_64(found):
    assert found.latency.keys() == {1, 64}
    assert all(x.before > 0 and x.after > 0 for x in found.latency.values())


def test_progress_tells_loss_accuracy_macs_and_price(found, told):
    assert [p.phase for p in told if p.phase != "train"] == [
        "load",
        *["validate"] * 5,
        "test",
        "measure",
        "report",
    ]
    epochs = [p for p in told if p.phase == "train" and p.step % 5 == 0 and p.epoch]
    last = epochs[-1]
    assert (last.step, last.total_steps, last.epoch, last.epochs) == (25, 25, 5, 5)
    epoch = [event for event in events(found.run) if event["event"] == "epoch"][-1]
    assert last.validation_accuracy == epoch["validation_accuracy"]
    assert last.macs_share == pytest.approx(found.macs / found.macs_before)
    assert {p.price for p in told} == {None, 1.5}


def test_a_finished_run_has_nothing_to_resume(found):
    with pytest.raises(UsageError, match=r"is finished; there is nothing left to resume. See its"):
        train(found.run, on_progress=ignore)


def test_the_generators_of_the_caller_are_left_alone(tmp_path):
    state = torch.get_rng_state()
    config = tiny_config(search=None, epochs=1, warmup_epochs=0.5, precision="bf16-mixed")
    finished_run(config, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_has_its_own_number_of_threads(tmp_path):
    outcome = finished_run(
        tiny_config(search=None, epochs=2, threads=torch.get_num_threads() + 1), tmp_path / "run"
    )
    assert outcome.threads == torch.get_num_threads() + 1
    assert events(outcome.run)[0]["machine"]["threads"] == outcome.threads
    assert events(outcome.run)[-1]["threads"] == outcome.threads


def test_half_precision_keeps_the_weights_in_single_precision(tmp_path):
    config = tiny_config(precision="bf16-mixed", label_smoothing=0.1, optimizer="adamw", lr=0.003)
    outcome = finished_run(config, tmp_path / "run")
    kinds = {tensor.dtype for tensor in weights(outcome.run).values()}
    assert kinds == {torch.float32, torch.int64}
    assert outcome.macs < outcome.macs_before


def test_a_setting_that_fails_leaves_a_run_that_can_be_begun_again(tmp_path):
    config = tiny_config().model_copy(
        update={"model": tiny_config().model.model_copy(update={"name": "resnet21"})}
    )
    run = create_run(config, tmp_path / "run")
    with pytest.raises(UsageError, match=r"There is no model 'resnet21'. Did you mean"):
        train(run, on_progress=ignore)

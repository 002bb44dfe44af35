"""Methods as a config describes them, and runs with them."""

from secateur.methods import AOFP, ComplexityAware, ResRep
from secateur.training.trainer import AOFPConfig, ResRepConfig, SearchConfig, build_method
from tests.training.trainer.tiny_runs import events, finished_run, tiny_config


def test_what_a_config_leaves_out_is_as_the_method_has_it():
    assert build_method(SearchConfig(price=0.5)) == ComplexityAware(price=0.5)
    assert build_method(AOFPConfig(method="aofp")) == AOFP()
    found = build_method(ResRepConfig(method="resrep", target_macs=0.5))
    assert found == ResRep(target_macs=0.5)


def test_what_a_config_says_reaches_the_method():
    settings = {"tolerance": 0.2, "masks_per_half": 10, "steps_per_half": 2, "warmup": 3}
    settings |= {"min_units": 2, "settle_at": 0.5, "target_macs": 0.4}
    assert build_method(AOFPConfig(method="aofp", **settings)) == AOFP(**settings)
    settings = {"target_macs": 0.4, "penalty": 0.3, "momentum": 0.5, "warmup": 3, "interval": 2}
    settings |= {"min_units": 2, "settle_at": 0.5}
    assert build_method(ResRepConfig(method="resrep", **settings)) == ResRep(**settings)
    settings = {"target_macs": 0.4, "reference": [1e6, 1e5], "patience": 9, "layer_share": 0.2}
    settings |= {"compute_share": 0.9, "settle_at": 0.6}
    expected = ComplexityAware(**settings | {"reference": (1e6, 1e5)})
    assert build_method(SearchConfig(**settings)) == expected


def test_a_run_with_aofp_ends_at_its_target_and_is_billed_for_what_it_measured(tmp_path):
    search = AOFPConfig(method="aofp", target_macs=0.5, tolerance=0.05, warmup=1, settle_at=0.8)
    outcome = finished_run(tiny_config(search=search, epochs=8), tmp_path / "run")
    assert 0.45 < outcome.macs / outcome.macs_before <= 0.5
    told = events(outcome.run)
    assert told[0]["method"]["name"] == "AOFP"
    share = {event["step"]: event["macs_share"] for event in told if event["event"] == "step"}
    plain = sum(3 * 64 * outcome.macs_before * share.get(step, 1.0) for step in range(40))
    assert plain < outcome.training_macs < 2 * plain


def test_a_run_with_resrep_ends_at_its_target_and_still_reads_digits(tmp_path):
    search = ResRepConfig(method="resrep", target_macs=0.5, warmup=4)
    outcome = finished_run(tiny_config(search=search, epochs=12), tmp_path / "run")
    assert 0.4 < outcome.macs / outcome.macs_before <= 0.5
    assert outcome.test_accuracy > 0.6
    told = events(outcome.run)
    assert told[0]["method"]["name"] == "ResRep"
    assert [event["event"] for event in told].count("remove") == 1

"""The code on the page about iterative pruning runs, with a tiny job where it leaves one open."""

import re

import torch

from secateur.training.iteration import IterationReport
from tests.clean_room import ROOT
from tests.training.iteration.loops import data, sgd, small_net

PAGE = ROOT / "docs/methods/infcop.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    first = first.replace("levels=15", "levels=3").replace("max_chunks=20", "max_chunks=2")
    images, labels = data()
    model = small_net()
    names = {
        "F": torch.nn.functional,
        "model": model,
        "build_model": small_net,
        "optimizer": sgd(model),
        "loader": [(images, labels)],
        "probe_batches": [images],
        "validation_accuracy": lambda: 0.5,
    }
    exec(compile(first, str(PAGE), "exec"), names)
    assert isinstance(names["report"], IterationReport)
    assert "epochs were trained" in capsys.readouterr().out
    exec(compile(second, str(PAGE), "exec"), names)
    for name, mask in names["report"].masks.kept.items():
        assert torch.equal(names["kept"][name], mask)
        dense = names["sparse"][name].to_dense()
        assert torch.equal(dense, names["report"].masks.weights[name].reshape(dense.shape))

import sys

import numpy as np

from benchmarks import sharded_training
from fedistill.teachers import mlp


def test_both_ways_train_the_same_networks():
    shards = sharded_training.make_shards(7, 30, 5)
    apart = sharded_training.one_after_the_other(shards)
    together = mlp.train_together(shards, sharded_training.NUM_CLASSES)
    assert apart.keys() == together.keys()
    for name, value in apart.items():
        np.testing.assert_allclose(together[name], value, atol=1e-2)


def test_it_prints_the_ratio_of_the_times(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sharded_training", "--shards", "20", "--repeats", "1"])
    sharded_training.main()
    (ratio,) = [line for line in capsys.readouterr().out.splitlines() if "ratio" in line]
    assert float(ratio.split()[1]) > 1

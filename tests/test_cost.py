import torch

import ddcore
from ddcore.bench.cost import _update, cost

SMALL = {"network": "convnet", "width": 4, "batch_real": 4, "strategy": "none"}
KINDS = {"pixels": {"kind": "pixels", "init": "real"}, "factors": {"kind": "lowrank", "rank": 1}}


def test_every_method_and_kind_has_a_row_a_round():
    data = ddcore.load("digits", "cpu")
    rows = cost(
        data,
        seed=0,
        methods={"DM": {"name": "dm", **SMALL}, "DC": {"name": "dc", **SMALL, "inner": 1}},
        kinds=KINDS,
        budget_ipc=1,
        rounds=2,
    )
    assert {(row["method"], row["kind"], row["round"]) for row in rows} == {
        (method, kind, turn) for method in ("DM", "DC") for kind in KINDS for turn in range(2)
    }
    assert {(row["kind"], row["images_per_class"]) for row in rows} == {("pixels", 1), ("factors", 4)}
    assert all(row["seconds"] > 0 for row in rows)


def test_an_update_is_the_gradient_of_the_method_in_what_the_set_stores():
    data = ddcore.load("digits", "cpu")
    synthetic = ddcore.LowRank(data, 1, rank=1, seed=3)
    method = ddcore.DM(**SMALL)
    found = _update(data, method, synthetic, 3)()
    expected = torch.autograd.grad(next(method.matches(data, synthetic, seed=3)).loss, synthetic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

import copy

import pytest
import torch

import ddcore
from ddcore.errors import BadInput
from ddcore.lab.experiment import Experiment
from ddcore.lab.measurements.transfer import Transfer
from ddcore.lab.runner import Runner
from ddcore.synthetic import create

EVALUATE = {"network": "convnet", "width": 8, "epochs": 8, "networks": 2, "strategy": "none"}
DM = {
    "synthetic": {"kind": "lowrank", "rank": 1},
    "method": {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"},
    "distill": {"steps": 3},
}


@pytest.fixture(scope="module")
def made():
    runner = Runner("smoke", None, device="cpu")
    record = runner.run(Experiment("digits", 1, evaluate=EVALUATE, seed=2, **DM))
    return runner, record, runner.synthetic(record)


def test_the_same_network_finds_the_same_scores(made):
    runner, record, synthetic = made
    again = runner.run(Transfer(record, synthetic))
    assert again.result["scores"] == record.result["scores"]
    assert again.hash != record.hash


def test_another_network_is_that_network_on_that_set(made):
    runner, record, synthetic = made
    through = runner.run(Transfer(record, synthetic, {"network": "mlp", "width": 16}))
    direct = ddcore.evaluate(
        synthetic,
        runner.data("digits"),
        seeds=[2000, 2001],
        **{k: v for k, v in EVALUATE.items() if k != "networks"} | {"network": "mlp", "width": 16},
    )
    assert through.result["scores"] == list(direct.scores)
    assert through.experiment["evaluate"]["network"] == "mlp"
    assert through.experiment["method"] == record.experiment["method"]


def test_numbers_that_half_precision_does_not_hold_are_refused(made):
    runner, record, synthetic = made
    large = copy.copy(synthetic)
    large.tensors = {name: 1e5 * tensor.detach() for name, tensor in synthetic.tensors.items()}
    with pytest.raises(BadInput, match=r"beyond float16.*bfloat16"):
        runner.run(Transfer(record, large, stored="float16"))
    assert Transfer(record, large, stored="bfloat16").changed(runner.data("digits")).images().isfinite().all()


def test_fewer_bits_are_the_rounded_factors_and_the_set_stays_as_it_was(made):
    runner, record, synthetic = made
    before = {name: tensor.detach().clone() for name, tensor in synthetic.tensors.items()}
    half, whole = (
        runner.run(Transfer(record, synthetic, stored=stored)) for stored in ("bfloat16", "float32")
    )
    assert half.result["stored_bits"] * 2 == whole.result["stored_bits"] == 32 * synthetic.stored_numbers
    assert all(torch.equal(before[name], tensor) for name, tensor in synthetic.tensors.items())
    images = Transfer(record, synthetic, stored="bfloat16").changed(runner.data("digits")).images()
    assert torch.equal(images, before["u"].bfloat16().float() @ before["v"].bfloat16().float())
    assert not torch.equal(images, synthetic.images())


@pytest.mark.parametrize("kind", ["pixels", "lowrank", "tucker"])
def test_rescaled_images_have_the_spread_of_real_ones_and_their_own_pattern(made, kind):
    runner, record, _ = made
    data = runner.data("digits")
    synthetic = create(data, kind, 3, seed=1, init="noise", **({} if kind == "pixels" else {"rank": 2}))
    with torch.no_grad():
        synthetic.parameters()[0].mul_(50)
    before, after = (
        synthetic.images().detach(),
        Transfer(record, synthetic, rescaled=True).changed(data).images(),
    )
    assert torch.allclose(after.std(dim=(1, 2, 3)), data.x_train[:].std().expand(len(after)), rtol=1e-4)
    assert torch.allclose(
        torch.cosine_similarity(before.flatten(1), after.flatten(1)), torch.ones(len(after)), atol=1e-5
    )


def test_rescaling_is_another_record_and_its_absence_is_not(made):
    runner, record, synthetic = made
    assert runner.key(Transfer(record, synthetic, rescaled=True)) != runner.key(Transfer(record, synthetic))
    assert "rescaled" not in Transfer(record, synthetic).identity(runner.data("digits"))


def test_bad_settings_are_refused(made):
    runner, record, synthetic = made
    with pytest.raises(BadInput, match="kind of rescaled set 'adaptive'"):
        Transfer(record, create(runner.data("digits"), "adaptive", 1, seed=0, rank=2), rescaled=True)
    with pytest.raises(BadInput, match="stored"):
        Transfer(record, synthetic, stored="int3")
    with pytest.raises(BadInput, match="network"):
        Transfer(record, synthetic, {"nets": 3})

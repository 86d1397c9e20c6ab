"""Relabel: the published loop of training on a teacher's labels, its gradient, its teacher left as it was."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import resized_crop

import ddcore
from ddcore import networks
from ddcore.augment import crops, mixing
from ddcore.evaluation import accuracy, relabel
from ddcore.evaluation.relabel import Relabel
from ddcore.lab.experiment import Experiment
from ddcore.lab.runner import Runner
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.random import stream

TEACHER = {"network": "convnet2-bn", "width": 6, "epochs": 2, "crop": 1, "flip": False}
TINY = Squeeze(**TEACHER)
SMALL = {
    "network": "convnet2-bn",
    "width": 5,
    "epochs": 3,
    "batch": 8,
    "crop": 1,
    "flip": False,
    "teacher": TINY,
}

pytestmark = pytest.mark.usefixtures("teachers")


def states_equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("mix", mixing.MIXES)
def test_training_is_the_published_loop(digits64, mode, mix):
    """AdamW, torch's cosine once an epoch, the teacher on the mixed view, KL at the temperature with batchmean and no T^2."""
    from torch.optim import AdamW
    from torch.optim.lr_scheduler import CosineAnnealingLR

    images, labels = digits64.x_train[::60], digits64.y_train[::60]
    ours = Relabel(**SMALL, mix=mix, teacher_mode=mode).train(images, labels, digits64, (4,))[0]
    net = networks.build(
        "convnet2-bn",
        digits64.shape,
        10,
        width=5,
        dtype=torch.float64,
        generator=stream(4, "relabel", "network"),
    )
    teacher = squeeze(digits64, TINY).train(mode == "train")
    optimiser = AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    schedule, generator = CosineAnnealingLR(optimiser, T_max=3), stream(4, "relabel", "train")
    numbers = np.random.default_rng(stream(4, "relabel", "mix").initial_seed())
    for _ in range(3):
        for rows in torch.randperm(len(images), generator=generator).split(8):
            if len(rows) == 1:
                continue
            x = crops.apply(
                crops.draw(len(rows), generator, pad=1, flip=False),
                images[rows],
                -digits64.mean[0] / digits64.std[0],
            )
            if mix == "mixup":
                partner, share = torch.randperm(len(x), generator=generator), numbers.beta(0.8, 0.8)
                x = share * x + (1 - share) * x[partner]
            elif mix == "cutmix":
                x = mixing.apply(mixing.draw("cutmix", x, 0.8, generator, numbers), x)
            soft = torch.softmax(teacher(x) / 30, dim=1).detach()
            loss = torch.nn.KLDivLoss(reduction="batchmean")(torch.log_softmax(net(x) / 30, dim=1), soft)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)


def test_training_is_the_published_loop_of_imagenet(digits64):
    """A random resized crop of each image, mirror images, CutMix with alpha 1, the teacher's own statistics, T = 20."""
    from torch.optim import AdamW

    images, labels = digits64.x_train[::60], digits64.y_train[::60]
    how = Relabel(
        **SMALL | {"crop": 0, "flip": True, "epochs": 2},
        crop_scale=0.08,
        mix="cutmix",
        alpha=1.0,
        teacher_mode="eval",
        temperature=20.0,
    )
    ours = how.train(images, labels, digits64, (4,))[0]
    net = networks.build(
        "convnet2-bn",
        digits64.shape,
        10,
        width=5,
        dtype=torch.float64,
        generator=stream(4, "relabel", "network"),
    )
    teacher, optimiser = squeeze(digits64, TINY), AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    generator, numbers = (
        stream(4, "relabel", "train"),
        np.random.default_rng(stream(4, "relabel", "mix").initial_seed()),
    )
    for epoch in range(2):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1, 0.5)[epoch]
        for rows in torch.randperm(len(images), generator=generator).split(8):
            windows = crops.windows(len(rows), (8, 8), generator, scale=0.08).tolist()
            x = torch.stack(
                [
                    resized_crop(image, *window, [8, 8], antialias=False)
                    for image, window in zip(images[rows], windows, strict=True)
                ]
            )
            mirrored = crops.draw(len(rows), generator, pad=0).mirrored
            x = torch.stack(
                [image.flip(2) if flip else image for image, flip in zip(x, mirrored, strict=True)]
            )
            x = mixing.apply(mixing.draw("cutmix", x, 1.0, generator, numbers), x)
            loss = torch.nn.KLDivLoss(reduction="batchmean")(
                torch.log_softmax(net(x) / 20, 1), torch.softmax(teacher(x) / 20, 1)
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_watched_student_is_the_same_to_the_bit_and_its_best_epoch_is_known(digits, mode):
    how = Relabel(**SMALL | {"epochs": 7, "lr": 0.05}, teacher_mode=mode)
    watched, synthetic, seen = dataclasses.replace(how, every=2), ddcore.Pixels(digits, 2), {3: [], 4: []}

    def watch(seed, student):
        seen[seed].append(accuracy(student, digits))

    images, labels = synthetic.images().detach(), synthetic.labels
    alone, other = (
        how.train(images, labels, digits, (3, 4)),
        watched.train(images, labels, digits, (3, 4), watch),
    )
    assert all(
        states_equal(one.state_dict(), two.state_dict()) for one, two in zip(alone, other, strict=True)
    )
    assert [len(tests) for tests in seen.values()] == [3, 3]
    before, after = (
        ddcore.evaluate(synthetic, digits, seeds=[3, 4], protocol="relabel", **vars(one))
        for one in (how, watched)
    )
    assert before.scores == after.scores
    assert before.best == ()
    assert after.best == tuple(
        max(*seen[seed], last) for seed, last in zip((3, 4), after.scores, strict=True)
    )
    assert after.result()["best"] == list(after.best)
    assert "best" not in before.result()


def test_watching_is_of_the_hash_only_when_asked():
    def evaluate(**more):
        return Experiment(
            "digits", 1, evaluate={"protocol": "relabel", "teacher": TEACHER} | more
        ).resolved()["evaluate"]

    assert not {"every", "crop_scale"} & set(evaluate())
    assert evaluate(crop_scale=0.08, crop=0) == evaluate(crop=0) | {"crop_scale": 0.08}
    assert evaluate(every=10) == evaluate() | {"every": 10}


def test_hard_labels_are_mixed_as_the_images_are(digits64):
    logits = torch.randn(4, 10, generator=stream(0, "logits"), dtype=torch.float64)
    labels, mix = torch.tensor([1, 2, 3, 4]), mixing.Mix(torch.tensor([2, 0, 3, 1]), 0.3)
    one_hot = torch.nn.functional.one_hot(labels, 10).double()
    target = 0.3 * one_hot + 0.7 * one_hot[mix.partner]
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert relabel._hard_part(labels, mix)(logits, slice(0, 4)).item() == pytest.approx(
        expected.item(), rel=1e-12
    )
    assert relabel._hard_part(one_hot, mix)(logits, slice(0, 4)).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0, 30.0])
def test_the_gradient_of_the_soft_loss_is_the_difference_of_the_probabilities(temperature):
    student, teacher = (
        torch.randn(6, 5, generator=stream(0, name), dtype=torch.float64) * 4
        for name in ("student", "teacher")
    )
    student.requires_grad_()
    loss = relabel.soft_loss(student, teacher, temperature)
    expected = ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / (temperature * 6)
    torch.testing.assert_close(
        torch.autograd.grad(loss, student)[0], expected.detach(), rtol=1e-12, atol=1e-14
    )
    assert relabel.soft_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-14)


def test_labels_depend_on_the_batch_in_train_mode_only(digits64):
    teacher = squeeze(digits64, TINY)
    images, others = digits64.x_train[:6], digits64.x_train[-9:]
    for mode, same in (("eval", True), ("train", False)):
        say = relabel.labeller(teacher, Relabel(**SMALL, teacher_mode=mode), digits64.device)
        alone, among = say(images), say(torch.cat([images, others]))[:6]
        assert torch.allclose(alone, among, rtol=0, atol=1e-12) == same
        assert not alone.requires_grad


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_teacher_and_its_file_are_left_as_they_were(digits64, teachers, mode):
    before = squeeze(digits64, TINY)
    kept = {path: path.read_bytes() for path in teachers.iterdir()}
    state = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    how = Relabel(**SMALL, teacher_mode=mode)
    relabel._student(digits64.x_train[::60], digits64.y_train[::60], digits64, 0, before, how)
    assert states_equal(state, before.state_dict())
    assert not before.training
    ddcore.evaluate(ddcore.Pixels(digits64, 1), digits64, seeds=[0], protocol="relabel", **vars(how))
    assert {path: path.read_bytes() for path in teachers.iterdir()} == kept


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_student_depends_on_its_seed_only(digits, mode):
    images, labels, how = digits.x_train[::60], digits.y_train[::60], Relabel(**SMALL, teacher_mode=mode)
    many = how.train(images, labels, digits, (0, 1, 2))
    alone = how.train(images, labels, digits, (1,))
    assert states_equal(many[1].state_dict(), alone[0].state_dict())
    assert not states_equal(many[0].state_dict(), alone[0].state_dict())


def test_soft_labels_do_not_look_at_the_labels_of_the_set_and_hard_ones_look_at_nothing_else(
    digits, monkeypatch
):
    images, labels, how = digits.x_train[::60], digits.y_train[::60], Relabel(**SMALL)
    one, other = how.train(images, labels, digits, (0,)), how.train(images, labels.flip(0), digits, (0,))
    assert states_equal(one[0].state_dict(), other[0].state_dict())
    monkeypatch.setattr(relabel.squeeze, "squeeze", lambda *arguments: pytest.fail("no teacher is needed"))
    hard = dataclasses.replace(how, labels="hard")
    one, other = hard.train(images, labels, digits, (0,)), hard.train(images, labels.flip(0), digits, (0,))
    assert not states_equal(one[0].state_dict(), other[0].state_dict())
    hot = hard.train(images, torch.nn.functional.one_hot(labels, 10).float(), digits, (0,))
    torch.testing.assert_close(hot[0].classifier.weight, one[0].classifier.weight, rtol=1e-3, atol=1e-4)


def test_one_image_a_class_several_channels_and_a_student_without_batch_norm(coloured):
    how = Relabel(
        **SMALL | {"network": "mlp", "teacher": dataclasses.replace(TINY, network="convnet1-bn", batch=8)}
    )
    assert (
        ddcore.evaluate(ddcore.Pixels(coloured, 1), coloured, seeds=[0], protocol="relabel", **vars(how)).n
        == 1
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"temperature": 0.0},
        {"alpha": 0.0},
        {"mix": "blend"},
        {"labels": "none"},
        {"teacher_mode": "test"},
        {"crop": -4},
        {"crop_scale": 0.08},
        {"every": -1},
        {"precision": "float16"},
    ],
)
def test_ill_settings_are_refused(wrong, refuses):
    with refuses(next(iter(wrong))):
        Relabel(**wrong)


def test_a_mistaken_setting_of_the_teacher_is_refused(refuses):
    with refuses("epoch", "did you mean 'epochs'"):
        Experiment("digits", 1, evaluate={"protocol": "relabel", "teacher": {"epoch": 3}})
    with refuses("convnet3", "batch norm"):
        Experiment(
            "digits", 1, method={"name": "sre2l", "teacher": {"network": "convnet3"}}, distill={"steps": 1}
        )


def test_the_hash_covers_teacher_and_versions(digits):
    def identity(**more):
        return Experiment(
            "digits",
            1,
            method={"name": "sre2l", "teacher": TEACHER},
            distill={"steps": 1},
            evaluate={"protocol": "relabel", "teacher": TEACHER | more},
        ).identity(digits)

    found = identity()
    assert found["versions"].items() >= {"squeeze": 1, "relabel": 1, "crops": 1, "sre2l": 1}.items()
    assert found["method"]["teacher"]["epochs"] == 2
    assert json.dumps(found) != json.dumps(identity(epochs=3))


@pytest.mark.usefixtures("untouched")
def test_a_recovered_and_relabelled_set_beats_real_images_with_their_labels(tmp_path):
    teacher = TEACHER | {"width": 16, "epochs": 15}
    loop = {"steps": 100, "optimiser": "adam", "lr_img": 0.25, "momentum": 0.5, "schedule": "cosine"}
    how = {
        "protocol": "relabel",
        "network": "convnet2-bn",
        "width": 16,
        "epochs": 400,
        "batch": 32,
        "lr": 0.01,
        "crop": 1,
        "flip": False,
        "teacher": teacher,
        "teacher_mode": "eval",
    }
    runner = Runner("smoke", tmp_path, device="cpu")
    recovered = runner.run(
        Experiment(
            "digits",
            1,
            {"kind": "pixels", "init": "noise", "clip": True},
            {"name": "sre2l", "roll": 1, "teacher": teacher},
            loop,
            how,
        )
    )
    real = {"kind": "pixels", "init": "real"}
    soft, hard = (
        runner.run(Experiment("digits", 1, real, evaluate=how | {"labels": labels}))
        for labels in ("soft", "hard")
    )
    assert recovered.result["losses"][-1] < 0.1 * recovered.result["losses"][0]
    assert recovered.result["accuracy"] > hard.result["accuracy"] + 5
    assert soft.result["accuracy"] > hard.result["accuracy"] + 5

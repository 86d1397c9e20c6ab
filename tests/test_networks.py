import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from ddcore import networks
from ddcore.networks import build, initialise, parameter_count, usual_depth
from ddcore.random import stream

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def net_of(name, shape=COLOUR, classes=10, seed=0, **settings):
    return build(name, shape, classes, generator=stream(seed, "net"), **settings)


def batch(shape, many=2, seed=0, dtype=torch.float32):
    return torch.randn(many, *shape, generator=stream(seed, "batch"), dtype=dtype)


# The published networks' sizes, counted layer by layer from lodc.md 1.7 and VICO-UoE/DatasetCondensation networks.py (53f63a6).
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("convnet3", COLOUR, 320_010),
        ("convnet3", GREY, 317_706),
        ("convnet", COLOUR, 320_010),
        ("convnet-bn", COLOUR, 320_010),
        ("convnet-nonorm", COLOUR, 320_010 - 3 * 2 * 128),
        ("mlp", GREY, 784 * 128 + 128 + 128 * 128 + 128 + 1290),
        ("mlp", COLOUR, 3072 * 128 + 128 + 128 * 128 + 128 + 1290),
        ("lenet", GREY, 61_706),
        ("lenet", COLOUR, 62_006),
        ("alexnet", COLOUR, 9_728 + 614_592 + 442_624 + 442_560 + 331_968 + 30_730),
        ("vgg11", COLOUR, 9_231_114),
        ("vgg11-bn", COLOUR, 9_231_114),
        ("resnet18", COLOUR, 11_173_962),
        ("resnet18-bn", COLOUR, 11_173_962),
    ],
)
def test_published_parameter_count(name, shape, count):
    assert parameter_count(net_of(name, shape)) == count


@pytest.mark.parametrize("shape", [GREY, COLOUR])
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("convnet3", [(128, 16, 16), (128, 8, 8), (128, 4, 4)]),
        ("convnet4-bn", [(128, 16, 16), (128, 8, 8), (128, 4, 4), (128, 2, 2)]),
        ("mlp", [(128,), (128,)]),
        ("lenet", [(6, 14, 14), (16, 5, 5), (120,), (84,)]),
        ("alexnet", [(128, 16, 16), (192, 8, 8), (256, 8, 8), (192, 8, 8), (192, 4, 4)]),
        ("vgg11", [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)]),
        ("resnet18", [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 1, 1)]),
    ],
)
def test_every_block_is_in_reach(name, shapes, shape):
    net, x = net_of(name, shape), batch(shape)
    with torch.no_grad():
        features = net.features(x)
        assert [tuple(block.shape[1:]) for block in features] == shapes
        assert torch.equal(net.embed(x), features[-1].flatten(1))
        assert torch.equal(net(x), net.classifier(net.embed(x)))
        assert net(x).shape == (2, 10)


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_the_embedding_of_a_convnet3_has_2048_features(shape):
    assert net_of("convnet", shape).embed(batch(shape)).shape == (2, 2048)


@pytest.mark.parametrize(
    ("suffix", "norm"), [("", "instance"), ("-in", "instance"), ("-bn", "batch"), ("-nonorm", None)]
)
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_convnet_equals_a_plain_sequence(suffix, norm, shape):
    layers, channels = [], shape[0]
    for level in range(3):
        layers.append(
            nn.Conv2d(channels, 16, kernel_size=3, padding=3 if level == 0 and shape == GREY else 1)
        )
        if norm:
            layers.append(nn.InstanceNorm2d(16, affine=True) if norm == "instance" else nn.BatchNorm2d(16))
        layers += [nn.ReLU(), nn.AvgPool2d(kernel_size=2, stride=2)]
        channels = 16
    plain = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * 4, 10)).double()
    net, x = (
        net_of(f"convnet3{suffix}", shape, width=16, dtype=torch.float64),
        batch(shape, 5, dtype=torch.float64),
    )
    with torch.no_grad():
        for index, (mine, other) in enumerate(zip(net.parameters(), plain.parameters(), strict=True)):
            assert mine.shape == other.shape
            mine.copy_(torch.randn(mine.shape, generator=stream(index, "weights"), dtype=torch.float64))
            other.copy_(mine)
        torch.testing.assert_close(net(x), plain(x), rtol=1e-12, atol=1e-12)


def test_resnet_blocks_equal_the_published_formula():
    block = networks.Residual(4, 6, 2, "batch").double()
    for index, parameter in enumerate(block.parameters()):
        nn.init.normal_(parameter, generator=stream(index, "weights"))
    x = batch((4, 8, 8), dtype=torch.float64)
    (conv1, norm1, _, conv2, norm2), (conv3, norm3) = block.path, block.shortcut
    expected = torch.relu(norm2(conv2(torch.relu(norm1(conv1(x))))) + norm3(conv3(x)))
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 6, 4, 4)


@pytest.mark.parametrize(
    "name", ["convnet", "convnet-bn", "mlp", "lenet", "alexnet-bn", "vgg11", "resnet18-bn"]
)
def test_same_generator_same_bits_and_initialise_equals_a_fresh_build(name):
    one, other = net_of(name, width=8), net_of(name, width=8, seed=1)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    other(batch(COLOUR))  # moves the running statistics of a batch norm
    for parameter in other.parameters():
        parameter.data.add_(1)
    assert initialise(other, stream(0, "net")) is other
    for (key, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), key


@pytest.mark.parametrize("name", ["convnet", "mlp", "lenet", "alexnet", "resnet18-bn"])
def test_weights_start_uniform_within_one_over_root_fan_in(name):
    for module in net_of(name).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))
            assert module.weight.abs().max() <= bound
            if module.weight.numel() > 3000:
                assert module.weight.abs().max() > 0.99 * bound
            if module.bias is not None:
                assert module.bias.abs().max() <= bound
                assert module.bias.unique().numel() > 1
        elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_weights_start_with_the_moments_of_torch_defaults():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        defaults = [nn.Conv2d(128, 128, 3), nn.Linear(2048, 10)]
    net = net_of("convnet3")
    for ours, default in zip([net.blocks[1][0], net.classifier], defaults, strict=True):
        error = float(default.weight.detach().std()) / math.sqrt(default.weight.numel())
        assert abs(ours.weight.mean() - default.weight.mean()) < 5 * error
        assert abs(ours.weight.std() / default.weight.std() - 1) < 0.02
        assert abs(kurtosis(ours.weight) - 1.8) < 0.05


def kurtosis(weight):
    centred = weight.detach() - weight.detach().mean()
    return float(centred.pow(4).mean() / centred.pow(2).mean() ** 2)


def test_instance_norm_looks_at_one_image_batch_norm_at_all():
    x = batch(COLOUR, 4)
    for name, alone in (("convnet-in", True), ("convnet-nonorm", True), ("convnet-bn", False)):
        net = net_of(name, width=8)
        together, single = net(x)[:2], net(x[:2])
        assert torch.allclose(together, single, atol=1e-5) == alone


def test_norms_are_those_asked_for():
    def kinds(name):
        return {type(module) for module in net_of(name, width=8).modules()} & {nn.GroupNorm, nn.BatchNorm2d}

    for stem in ("convnet", "vgg11", "resnet18"):
        assert kinds(stem) == kinds(f"{stem}-in") == {nn.GroupNorm}
        assert kinds(f"{stem}-bn") == {nn.BatchNorm2d}
        assert kinds(f"{stem}-nonorm") == set()
    assert kinds("alexnet") == kinds("alexnet-nonorm") == kinds("mlp") == kinds("lenet") == set()
    assert kinds("alexnet-bn") == {nn.BatchNorm2d}


# torchvision's own


@pytest.mark.parametrize("stem", networks.IMAGENET)
def test_logits_are_those_of_torchvision_to_the_bit(stem):
    ours, x = net_of(f"{stem}-imagenet", (3, 40, 48), 7), batch((3, 40, 48), 3)
    names = networks.torchvision_names(f"{stem}-imagenet", ours)
    with torch.random.fork_rng():
        theirs = models.get_model(stem, num_classes=7)
    theirs.load_state_dict({names[name]: tensor for name, tensor in ours.state_dict().items()})
    with torch.no_grad():
        for network in (ours, theirs):
            network.train()(x)  # the running statistics move alike too
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert torch.equal(ours.blocks[0][1].running_var, theirs.bn1.running_var)
    assert not torch.equal(theirs.bn1.running_var, torch.ones(64))


@pytest.mark.parametrize(("name", "last"), [("resnet18-imagenet", 512), ("resnet50-imagenet", 2048)])
def test_the_blocks_are_the_stem_and_four_layers(name, last):
    shapes = [(64, 56, 56), (last // 8, 56, 56), (last // 4, 28, 28), (last // 2, 14, 14), (last, 1, 1)]
    with torch.no_grad():
        features = net_of(name, (3, 224, 224), 5).eval().features(batch((3, 224, 224), 1))
    assert [tuple(one.shape[1:]) for one in features] == shapes


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("stem", ["resnet18", "resnet50"])
def test_torchvisions_own_begin_from_the_generator_as_they_do_there(stem):
    name = f"{stem}-imagenet"
    one, other = net_of(name), net_of(name, seed=1)
    other.train()(batch(COLOUR))
    assert initialise(other, stream(0, "net")) is other
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = models.get_model(stem, num_classes=10)
    convolutions = [
        [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv2d)]
        for network in (one, theirs)
    ]
    for mine, its in zip(*convolutions, strict=True):
        error = 5 / math.sqrt(mine.numel())
        assert abs(float(mine.std() / its.std()) - 1) < error
        assert abs(float(mine.mean() / its.std())) < error
        assert abs(kurtosis(mine) - 3) < 20 / math.sqrt(mine.numel())
    for module in one.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()


def test_imagenets_statistics_are_those_that_torchvision_publishes():
    told = models.ResNet18_Weights.DEFAULT.transforms()
    assert (tuple(told.mean), tuple(told.std)) == (networks.IMAGENET_MEAN, networks.IMAGENET_STD)


@pytest.mark.parametrize(("shape", "settings"), [((1, 32, 32), {}), (COLOUR, {"width": 32})])
def test_what_torchvisions_own_have_not_is_refused(shape, settings, refuses):
    with refuses("resnet18-imagenet", "3 channels", "width 64", "resnet18-bn"):
        net_of("resnet18-imagenet", shape, **settings)


@pytest.mark.parametrize("name", ["resnet18", "convnet-bn", "resnet18-in"])
def test_networks_that_torchvision_has_not_have_no_name_there(name):
    assert networks.torchvision_names(name, net_of(name)) == {}


@pytest.mark.parametrize("name", ["mlp-bn", "lenet-in", "lenet-nonorm", "alexnet-in"])
def test_a_norm_that_would_be_ignored_is_refused(name, refuses):
    with refuses(name, "no such norm"):
        net_of(name)


@pytest.mark.parametrize(
    "name",
    [
        "convnett",
        "convnet0",
        "convnet-xx",
        "convnet3-ln",
        "convnet²",
        "resnet50",
        "",
        "-bn",
        "convnet3x",
        "vgg11-imagenet",
        "-imagenet",
    ],
)
def test_an_unknown_network_is_refused(name, refuses):
    with refuses(f"network '{name}'", "allowed", "resnet18"):
        net_of(name)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("convnet4", 8),
        ("lenet", 8),
        ("vgg11", 8),
        ("vgg11-bn", 16),
        ("resnet18", 8),
        ("alexnet", 4),
        ("convnet6", 32),
        ("convnet9-nonorm", 32),
    ],
)
def test_too_small_an_image_is_refused(name, side, refuses):
    with refuses(f"network {name}", f"{side}x{side}", "too small"):
        net_of(name, (1, side, side))


@pytest.mark.parametrize("given_settings", [{"width": 0}, {"width": -3}, {"classes": 0}])
def test_no_width_or_class_is_refused(given_settings, refuses):
    with refuses("network convnet", "above 0"):
        net_of("convnet", **given_settings)


@given(st.sampled_from(networks.NAMES), st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]))
def test_any_image_either_fits_or_is_refused(name, height, width, channels):
    try:
        net = net_of(name, (channels, height, width), 7, width=4)
    except networks.BadInput:
        return
    with torch.no_grad():
        assert net(batch((channels, height, width), 1)).shape == (1, 7)


@pytest.mark.parametrize(("side", "depth"), [(8, 2), (16, 2), (28, 3), (32, 3), (64, 4), (128, 5), (224, 6)])
def test_usual_depth(side, depth):
    assert usual_depth((3, side, side)) == depth
    assert len(net_of("convnet", (3, side, side), width=2).blocks) == depth


@pytest.mark.parametrize("depth", range(1, 6))
def test_the_name_sets_the_depth(depth):
    assert len(net_of(f"convnet{depth}", width=4).blocks) == depth


def test_a_new_network_trains_in_float32_and_learns_in_all_its_parameters():
    for name in ("convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18-bn"):
        net = net_of(name, width=8)
        assert all(module.training for module in net.modules())
        net(batch(COLOUR, 4)).square().sum().backward()
        for key, parameter in net.named_parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad.isfinite().all(), key
        assert net.classifier.weight.grad.abs().max() > 0
        assert next(net.parameters()).grad.abs().max() > 0

"""The paper's family of networks: sizes, the other translators, summary, export and compile."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from stforecast.errors import InputError
from stforecast.models.cost import summary
from stforecast.models.simvp import SimVPv2
from stforecast.models.translators import NAMES, Attention, PoolMinusIdentity, WindowAttention

TRANSLATORS = list(NAMES)


def small(translator, *args, grid=(12, 16), **options):
    torch.manual_seed(3)
    sizes = {
        "encoder_channels": 8,
        "translator_channels": 16,
        "translator_blocks": 3,
        "mlp_ratio": 2.0,
    }
    model = SimVPv2(*args, **(sizes | {"translator": translator, "grid": grid} | options))
    for name, parameter in model.named_parameters():  # what starts near nothing must count
        if "scale" in name or parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def field(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(2))


def distance(a, b):
    return float((a - b).norm() / b.norm())


# Parameters and multiply-accumulates of the authors' code: (benchmark, arguments, count, G)
TABLE = [
    ("moving_mnist", {}, 46_769_665, 16.526),
    ("moving_mnist", {"size": "L"}, 524_004_353, 152.149),
    ("moving_mnist", {"translator": "incepu"}, 57_946_113, 19.431),
    ("moving_mnist", {"translator": "vit"}, 46_102_273, 16.928),
    ("moving_mnist", {"translator": "swin"}, 46_105_409, 16.409),
    ("moving_mnist", {"translator": "poolformer"}, 37_115_393, 14.076),
    ("moving_mnist", {"translator": "mlpmixer"}, 38_192_449, 14.651),
    ("moving_mnist", {"translator": "convmixer"}, 3_919_361, 5.450),
    ("taxibj", {}, 9_961_058, 2.613),
    ("taxibj", {"translator": "incepu"}, 13_794_914, 3.614),
    ("weatherbench_t2m", {}, 12_758_305, 7.006),
    ("weatherbench_t2m", {"translator": "incepu"}, 14_666_017, 8.027),
    ("kth", {}, 15_632_961, 76.785),
    ("kth", {"translator": "incepu"}, 8_600_641, 48.256),
    ("caltech", {}, 15_634_243, 96.243),
    ("caltech", {"translator": "incepu"}, 8_601_923, 60.582),
    ("robonet", {}, 27.627e6, 36.95),
    ("robonet", {"translator": "incepu"}, 40.287e6, 52.27),
    ("bridgedata", {}, 27.627e6, 36.95),
    ("bridgedata", {"translator": "incepu"}, 40.287e6, 52.27),
    # in print: 12.2 M and 62.8 G
    ("kth", {"translator": "incepu", "translator_blocks": 6}, 12.2e6, 62.8),
]


@pytest.mark.parametrize(("name", "arguments", "parameters", "giga"), TABLE)
def test_sizes_are_the_papers(name, arguments, parameters, giga):
    with torch.device("meta"):
        model = SimVPv2.for_benchmark(name, **arguments).eval()
    settings = model.settings
    found = summary(model, (1, settings["input_steps"], settings["channels"], *settings["grid"]))
    if isinstance(parameters, int):
        assert found.parameters == parameters
    else:  # given to so many digits only
        assert found.parameters == pytest.approx(parameters, rel=5e-4 if parameters > 2e7 else 5e-3)
    assert found.flops / 1e9 == pytest.approx(giga, rel=1e-3)


def test_benchmarks_take_overrides_and_refuse_what_the_paper_lacks():
    with torch.device("meta"):
        kth = SimVPv2.for_benchmark("kth", target_steps=40, circular_longitude=True)
    assert (kth.target_steps, kth.passes, kth.circular_longitude) == (40, 4, True)
    assert kth.settings["drop_path"] == 0.2
    with pytest.raises(InputError, match="'L' for moving_mnist only"):
        SimVPv2.for_benchmark("taxibj", size="L")
    with pytest.raises(InputError, match="no benchmark 'mnist'; there are moving_mnist, taxibj"):
        SimVPv2.for_benchmark("mnist")
    with pytest.raises(InputError, match=r"translator must be one of gsta.*found 'resnet'"):
        SimVPv2.for_benchmark("taxibj", translator="resnet")


@pytest.mark.parametrize("translator", TRANSLATORS)
@pytest.mark.parametrize(("grid", "steps"), [((7, 10), 2), ((13, 27), 7), ((1, 3), 3)])
def test_any_grid_length_and_output_channels(translator, grid, steps):
    channels = 2 if steps > 3 else 1  # roll-out needs as many outputs as inputs
    model = small(translator, 3, steps, 2, out_channels=channels, grid=grid)
    y = model(field(2, 3, 2, *grid))
    assert y.shape == (2, steps, channels, *grid)
    assert y.isfinite().all()
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_a_sample_does_not_depend_on_its_batch(translator):
    model, x = small(translator, 4, 4), field(16, 4, 1, 12, 16)
    with torch.no_grad():
        assert distance(model(x)[5:6], model(x[5:6])) < 1e-6


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_a_seed_decides_everything(translator):
    def run(seed):
        torch.manual_seed(seed)
        sizes = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 2}
        model = SimVPv2(2, 2, dropout=0.2, translator=translator, grid=(8, 8), **sizes)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            loss = (model.train()(field(3, 2, 1, 8, 8)) - 1).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("translator", [t for t in TRANSLATORS if t != "mlpmixer"])
def test_periodic_longitude(translator):
    """Rolled input gives rolled output: by the stride, and for Swin by its windows."""
    model = small(translator, 2, 2, circular_longitude=True).double()
    x = field(1, 2, 1, 12, 16, dtype=torch.float64)
    k = model.stride * (model.translator[0].attention.window if translator == "swin" else 3)
    torch.testing.assert_close(model(x.roll(k, -1)), model(x).roll(k, -1))
    model = small(translator, 2, 2).double()
    assert (model(x.roll(k, -1)) - model(x).roll(k, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 12), (5, 7), (6, 9)])
def test_windows_attend_to_their_own_positions_only(size, shifted):
    """Against plain loops, on grids that windows of 4 fit and do not fit."""
    torch.manual_seed(0)
    layer = WindowAttention(16, 0.0, (8, 12), shifted=shifted).double()
    nn.init.normal_(layer.bias)
    nn.init.normal_(layer.qkv.weight, std=0.5)
    n, s = layer.window, layer.shift
    assert (n, s) == (4, 2 if shifted else 0)
    x = field(2, 16, *size, dtype=torch.float64)
    q, k, v = layer.qkv(x.permute(0, 2, 3, 1)).chunk(3, dim=-1)

    full = [m + -m % n for m in size]
    cells = [(i, j) for i in range(size[0]) for j in range(size[1])]
    rolled = {c: [(c[a] - s) % full[a] for a in (0, 1)] for c in cells}
    expected = torch.zeros_like(q)
    for at in cells:
        window = [c for c in cells if all(rolled[c][a] // n == rolled[at][a] // n for a in (0, 1))]
        for head in range(8):
            part = slice(2 * head, 2 * head + 2)
            keys = torch.stack([k[:, *c, part] for c in window], 1)
            values = torch.stack([v[:, *c, part] for c in window], 1)
            lookup = [
                (rolled[at][0] - rolled[c][0] + n - 1) * (2 * n - 1)
                + (rolled[at][1] - rolled[c][1] + n - 1)
                for c in window
            ]
            logits = (keys @ q[:, *at, part, None]).squeeze(-1) / math.sqrt(2)
            weights = (logits + layer.bias[lookup, head]).softmax(-1)
            expected[:, *at, part] = (weights[..., None] * values).sum(1)
    torch.testing.assert_close(layer(x), layer.project(expected).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("grid", "window", "shift"),
    [((14, 8), 7, 3), ((16, 32), 4, 2), ((96, 40), 6, 3), ((200, 200), 8, 4), ((7, 9), 7, 0)],
)
def test_swin_chooses_the_authors_windows(grid, window, shift):
    with torch.device("meta"):
        layer = WindowAttention(16, 0.0, grid, shifted=True)
    assert (layer.window, layer.shift) == (window, shift)


@pytest.mark.parametrize("circular_longitude", [False, True])
def test_pooling_knows_its_edges(circular_longitude):
    x = field(1, 2, 4, 5)
    pooled = PoolMinusIdentity(circular_longitude=circular_longitude)(x) + x
    columns = [4, 0, 1] if circular_longitude else [0, 1]
    torch.testing.assert_close(pooled[..., 0, 0], x[..., :2, columns].mean((-2, -1)))
    torch.testing.assert_close(pooled[..., 2, 3], x[..., 1:4, 2:5].mean((-2, -1)))


def test_attention_has_no_position_code():
    layer, x = Attention(16, 0.0), field(2, 16, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(layer(shuffled).flatten(2), layer(x).flatten(2)[..., order])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"translator": "swin"}, "translator='swin' has weights that depend on the grid"),
        ({"translator": "mlpmixer"}, r"give grid=\(H, W\)"),
        (
            {"translator": "mlpmixer", "grid": (8, 8), "circular_longitude": True},
            "belong to positions",
        ),
        ({"translator": "vit", "translator_channels": 20}, "multiples of 8; found a width of 20"),
        ({"grid": (8,)}, r"grid must be \(H, W\)"),
    ],
)
def test_impossible_translators_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        SimVPv2(**options)


def test_mlpmixer_refuses_another_grid():
    model = small("mlpmixer", 2, 2)
    with pytest.raises(InputError, match=r"latent grid of \(6, 8\), found \(8, 6\)"):
        model(field(1, 2, 1, 16, 12))


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_settings_survive_json(translator):
    model = small(translator, 2, 3)
    again = SimVPv2(**json.loads(json.dumps(model.settings)))
    again.load_state_dict(model.state_dict())
    x = field(1, 2, 1, 12, 16)
    assert torch.equal(again.eval()(x), model(x))
    assert again.settings == model.settings


def test_settings_of_older_bundles_mean_gsta():
    old = {k: v for k, v in small("gsta", 2, 3).settings.items() if k not in ("translator", "grid")}
    again = SimVPv2(**old)
    assert again.settings["translator"] == "gsta"
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in small("gsta", 2, 3).state_dict().items()
    }


def test_stochastic_depth_can_be_switched_off():
    x = field(8, 2, 1, 12, 16)
    rates = [block.drop_path for block in small("vit", 2, 2, drop_path=0.0).translator]
    assert rates == pytest.approx([0.01, 0.005, 0])  # the authors' 0 is not quite none
    for drop_path, same in ((0.5, False), (None, True)):
        model = small("vit", 2, 2, drop_path=drop_path).train()
        assert torch.equal(model(x), model(x)) is same


def test_parts_of_one_network_fit_into_another():
    """The paper's module study: the recipe in the notes of SimVPv2."""
    a, b = small("gsta", 2, 2), small("swin", 2, 2)
    for parameter in b.parameters():
        parameter.data.mul_(1.3)

    mixed = copy.deepcopy(b)
    for part in ("encoder", "decoder", "readout"):
        getattr(mixed, part).load_state_dict(getattr(a, part).state_dict())

    # Translators that do nothing leave the rest: mixed is a around b's translator.
    x, theirs = field(1, 2, 1, 12, 16), b.translator
    assert torch.equal(theirs(field(1, 16, 6, 8)), mixed.translator(field(1, 16, 6, 8)))
    assert not torch.equal(mixed(x), b(x))
    a.translator = mixed.translator = nn.Identity()
    assert torch.equal(mixed(x), a(x))


@pytest.mark.parametrize("translator", TRANSLATORS)
@pytest.mark.parametrize(("layers", "steps"), [(2, 3), (4, 2)])
def test_receptive_field_is_where_gradients_reach(translator, layers, steps):
    """Found from one row of the output: exact for kernels, a bound for Swin's windows."""
    width = 440 if layers == 4 else 280
    model = small(
        translator, 2, steps, grid=(4, width), encoder_layers=layers, translator_blocks=2
    ).double()
    for block in (*model.encoder, *model.decoder):
        block.norm = nn.Identity()  # its statistics see the whole frame
    if translator == "incepu":
        for module in (*model.translator.down, *model.translator.up):
            module.norms = nn.ModuleList(nn.Identity() for _ in module.norms)
    if translator == "poolformer":
        for block in model.translator:
            block.norm1 = block.norm2 = nn.Identity()
    x = field(1, 2, 1, 4, width, dtype=torch.float64).requires_grad_()
    y = model(x)[0, -1, 0, 1]
    seen = []
    for column in range(width // 2, width // 2 + 4):
        (gradient,) = torch.autograd.grad(y[column], x, retain_graph=True)
        columns = gradient.abs().amax((0, 1, 2, 3)).nonzero()
        seen.append(int(columns.max() - columns.min()) + 1)
    if translator in ("vit", "mlpmixer", "tau", "moganet", "uniformer"):  # they see all points
        assert model.receptive_field == math.inf
        assert min(seen) == width
    elif translator == "swin":
        assert model.receptive_field / 3 < max(seen) <= model.receptive_field
    else:
        assert max(seen) == min(model.receptive_field, width)
        assert model.receptive_field < width  # or the test shows nothing


def test_summary_of_any_network():
    """By hand: a strided convolution, its transpose, a norm, a linear layer, and what is kept."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1),  # (2,3,6,10) -> (2,8,3,5)
        nn.BatchNorm2d(8),
        nn.Sigmoid(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # -> (2,4,6,10)
        nn.Linear(10, 5),
    )
    before = copy.deepcopy(net.state_dict())
    found = summary(net, (2, 3, 6, 10))
    convolution, transposed, linear = 2 * 15 * 8 * 27, 2 * 15 * 8 * 4 * 4, 2 * 4 * 6 * 5 * 10
    macs = convolution + transposed + linear
    assert found.flops == macs + 2 * (2 * 8 * 15)
    assert found.torch_flops == 2 * macs
    assert found.parameters == (3 * 8 * 9 + 8) + 16 + (8 * 4 * 4 + 4) + 55
    # input; convolution's output and the batch's moments; sigmoid's output; the linear's input
    assert found.activation_bytes == 4 * (2 * 3 * 60 + 2 * 8 * 15 + 2 * 8 + 2 * 8 * 15 + 2 * 4 * 60)
    assert found.receptive_field is None
    assert "unknown" in str(found)
    for name, value in net.state_dict().items():  # nothing was run on the network itself
        assert torch.equal(value, before[name])
    assert not any(module._forward_hooks for module in net.modules())


def test_summary_reads_well():
    model = SimVPv2.for_benchmark("taxibj")
    text = str(summary(model.eval(), (2, 4, 2, 32, 32)))
    for words in ("2 x 4 x 2 x 32 x 32", "9.961 M", "5.226 G", "10.435 G", "the whole grid (395"):
        assert words in text, text
    longer = summary(small("gsta", 2, 6), (1, 2, 1, 12, 16))
    once = summary(small("gsta", 2, 2), (1, 2, 1, 12, 16))
    assert (longer.passes, longer.flops) == (3, once.flops)
    assert longer.torch_flops == 3 * once.torch_flops


def test_export_with_any_batch():
    model = small("gsta", 3, 5)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (field(2, 3, 1, 12, 16),), dynamic_shapes=({0: batch},))
    x = field(5, 3, 1, 12, 16)
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("translator", ["gsta", "incepu", "swin"])
def test_compiled_agrees_with_eager(translator):
    model, x = small(translator, 3, 3), field(2, 3, 1, 12, 16)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model))
    gradients = []
    for network in (model, compiled):
        y = network(x)
        y.square().mean().backward()
        gradients.append([y.detach(), *(p.grad for p in network.parameters())])
    for eager, other in zip(*gradients, strict=True):
        assert (eager - other).norm() < 1e-4 * max(float(eager.norm()), 1e-3)

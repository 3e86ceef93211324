"""The one roll-out: what is fed at which step, patches, padding, channels, and what is learnt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stforecast
from stforecast.errors import InputError
from stforecast.models import MMVP, ConvLSTM, CrevNet, PredRNNpp, PredRNNv2, for_inference
from stforecast.models.recurrent import Recurrent
from stforecast.task import Task
from stforecast.testing.weather import make_weather
from stforecast.training.objective import Objective

RNG = torch.Generator().manual_seed(0)


class Counter(Recurrent):
    """Gives what it was fed plus one in its first channels; its state is all that it was fed."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.gain = nn.Parameter(torch.ones(1))

    def begin(self, frame):
        return []

    def step(self, u, state):
        places = self.patch**2
        own = u.unflatten(1, (places, self.channels))[:, :, : self.out_channels].flatten(1, 2)
        return self.gain * own + 1, [*state, u]


def small(kind=ConvLSTM, *sizes, **settings):
    torch.manual_seed(0)
    steps = sizes or (3, 2, 1)
    return kind(*steps, **{"hidden": [3, 3], "kernel": 3, "patch": 2} | settings).eval()


def test_inputs_are_fed_and_then_what_it_gave():
    x = torch.arange(3.0).view(1, 3, 1, 1, 1) * 10
    frames, fed = Counter(3, 4, 1).unroll(x, 4)
    assert [f.item() for f in fed] == [0, 10, 20, 21, 22, 23]
    assert frames.flatten().tolist() == [1, 11, 21, 22, 23, 24]
    assert Counter(3, 4, 1)(x).flatten().tolist() == [21, 22, 23, 24]


@pytest.mark.parametrize("patch", [1, 2])
def test_a_change_is_added_to_the_frame_that_was_fed(patch):
    """In units of the change of one step, each channel in its own; what is known is not changed."""
    network = Counter(3, 4, 3, out_channels=2, patch=patch, predict_change=True)
    nn.init.zeros_(network.gain)  # a step gives 1
    x = torch.randn(2, 3, 3, 4, 2)
    unit = torch.tensor([0.5, 3.0])
    network.set_tendency_std(torch.stack([unit, 9 * unit, unit, unit]))
    frames, fed = network.unroll(x, 4)
    ahead = unit[:, None, None] * torch.arange(1.0, 5)[:, None, None, None]
    torch.testing.assert_close(frames[:, :2], x[:, :2, :2] + unit[:, None, None])
    torch.testing.assert_close(frames[:, 2:], x[:, 2:, :2] + ahead)
    assert len(fed) == 6
    plain = Counter(3, 4, 3, out_channels=2, patch=patch)
    plain.set_tendency_std(torch.ones(4, 2))
    assert "tendency_std" not in plain.state_dict()
    again = Counter(**network.settings)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(x), network(x))


@pytest.mark.parametrize("kind", [CrevNet, MMVP])
def test_what_gives_windows_predicts_no_change(kind):
    with pytest.raises(InputError, match="leave predict_change out"):
        kind(4, 3, 1, predict_change=True)


@pytest.mark.parametrize(
    ("mask", "fed"),
    [
        ([[1, 0]], [0, 10, 20, 30, 31]),  # the last two steps
        ([[0, 1]], [0, 10, 20, 21, 40]),
        ([[0, 1, 0, 1]], [0, 1, 20, 21, 40]),  # in reverse: from the second step on
    ],
)
def test_a_mask_chooses_true_frames(mask, fed):
    frames = torch.arange(6.0).view(1, 6, 1, 1, 1) * 10
    x, y = frames[:, :3], frames[:, 3:]
    _, state = Counter(3, 3, 1).unroll(x, 3, y, torch.tensor(mask).bool())
    assert [f.item() for f in state] == fed


def test_a_target_that_is_missing_is_never_fed():
    frames = torch.arange(6.0).view(1, 6, 1, 1, 1) * 10
    x, y = frames[:, :3], frames[:, 3:].clone()
    y[:, 0] = torch.nan
    network = Counter(3, 3, 1)
    for mask, fed in (([[0, 0]], [0, 10, 20, 21, 22]), ([[1, 1]], [0, 10, 20, 21, 40])):
        out, state = network.unroll(x, 3, y, torch.tensor(mask).bool())
        assert [f.item() for f in state] == fed
        out.sum().backward()
        assert network.gain.grad.isfinite()


def test_channels_that_are_not_forecast_come_from_the_input():
    """Those of its k-th own frame are those of input frame k mod T; in reverse, of that frame."""
    x = torch.arange(12.0).view(1, 3, 1, 2, 2) * 10
    x = torch.cat([x, -x], dim=2)  # the second channel is known
    _, fed = Counter(3, 5, 2, out_channels=1, patch=2).unroll(x, 5)
    known = [f.view(4, 2)[:, 1] for f in fed]
    for t, source in enumerate([0, 1, 2, 0, 1, 2, 0]):
        assert torch.equal(known[t], x[0, source, 1].flatten())
    y = x[:, :, :1]
    _, fed = Counter(3, 3, 2, out_channels=1).unroll(x, 3, y, torch.zeros(1, 4).bool())
    assert torch.equal(fed[1][0, 1], x[0, 1, 1])
    assert torch.equal(fed[1][0, 0], x[0, 0, 0] + 1)
    with pytest.raises(InputError, match="among its inputs; found 1 channels in, 2 out"):
        Counter(3, 3, 1, out_channels=2)


def test_patches_are_rows_columns_channels():
    network = Counter(1, 1, 2, patch=2)
    x = torch.randn(2, 3, 2, 4, 6, generator=RNG)
    cut = network.cut(x)
    assert cut.shape == (2, 3, 8, 2, 3)
    for row, col, c in ((0, 1, 0), (1, 0, 1)):
        assert torch.equal(cut[:, :, (row * 2 + col) * 2 + c], x[:, :, c, row::2, col::2])
    assert torch.equal(network.join(cut, (4, 6)), x)


def test_any_grid_is_padded_anew_at_each_step_and_cropped():
    x = torch.randn(1, 3, 1, 5, 7, generator=RNG)
    network = Counter(3, 4, 1, patch=2)
    out, fed = network.unroll(x, 4)
    assert out.shape == (1, 6, 1, 5, 7)
    last_row = network.join(fed[4][:, None], (6, 8))[0, 0, 0]
    assert torch.equal(last_row[5], last_row[4])  # replicated, not what the network made of it
    around = Counter(3, 4, 1, patch=2, circular_longitude=True).cut(x)
    assert torch.equal(around[..., 0, 3].view(3, 2, 2)[:, :, 1], x[0, :, 0, :2, 0])


def test_a_network_goes_on_to_any_length():
    network = small()
    x = torch.randn(1, 3, 1, 6, 6, generator=RNG)
    with torch.no_grad():
        long = network(x, 7)
        assert long.shape == (1, 7, 1, 6, 6)
        torch.testing.assert_close(long[:, :2], network(x))
    ds = make_weather(30, shape=(6, 8))
    task = Task("t2m", input_steps=3, target_steps=2)
    forecaster = stforecast.Forecaster(network, task, mean=[280.0], std=[10.0])
    out = forecaster.predict(ds, steps=5)
    assert out.sizes["prediction_timedelta"] == 5
    field = (ds["2m_temperature"].values[-3:] - 280) / 10
    with torch.no_grad():
        own = network(torch.from_numpy(field).float()[None, :, None], 5) * 10 + 280
    found = out["2m_temperature"].values.reshape(5, 6, 8)
    assert abs(found - own[0, :, 0].numpy()).max() < 1e-3


def test_longitude_may_go_round():
    x = torch.randn(1, 3, 1, 4, 8, generator=RNG)
    for kind in (ConvLSTM, PredRNNpp):
        network = small(kind, circular_longitude=True)
        with torch.no_grad():
            torch.testing.assert_close(network(x).roll(2, -1), network(x.roll(2, -1)))
            plain = small(kind)(x)
        assert not torch.allclose(plain.roll(2, -1), small(kind)(x.roll(2, -1)), atol=1e-4)


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("kind", [ConvLSTM, PredRNNpp, PredRNNv2])
def test_the_quick_form_computes_the_same(kind, around):
    network = small(kind, circular_longitude=around)
    x = torch.randn(3, 3, 1, 8, 10, generator=RNG)
    with torch.no_grad():
        exact = network(x, 4)
    torch.testing.assert_close(for_inference(network)(x, 4), exact, atol=1e-5, rtol=1e-5)
    near = for_inference(network, precision="bf16")(x, 4)
    assert (near - exact).norm() < 3e-2 * exact.norm()
    assert network.double().folded(torch.float32) is None


def test_weights_of_positions_belong_to_a_grid():
    with pytest.raises(InputError, match=r"give grid=\(H, W\)"):
        small(layer_norm=True)
    network = small(layer_norm=True, grid=(5, 7))
    assert network(torch.zeros(1, 3, 1, 5, 7)).shape == (1, 2, 1, 5, 7)
    with pytest.raises(InputError, match="a grid of 5 x 7, found input of 6 x 8"):
        network(torch.zeros(1, 3, 1, 6, 8))
    task = Task("t2m", 3, 2)
    made = ConvLSTM.for_task(task, {"y": 5, "x": 7}, layer_norm=True, hidden=[2])
    assert made.settings["grid"] == [5, 7]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden": []}, "hidden must be a list"),
        ({"hidden": 4}, "hidden must be a list"),
        ({"hidden": [4, 0]}, "hidden must be a whole number from 1"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"patch": 0}, "patch must be a whole number from 1"),
        ({"legacy": 1}, "legacy must be True or False"),
        ({"sampling": "at times"}, "sampling must be one of standard, reverse"),
        ({"sampling": {"speed": 1}}, "sampling takes other settings"),
    ],
)
def test_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        small(**settings)


def test_widths_that_must_be_equal():
    for kind, hidden in ((PredRNNpp, [3]), (PredRNNpp, [3, 4]), (PredRNNv2, [3, 4])):
        with pytest.raises(InputError, match="of one width, found"):
            small(kind, hidden=hidden)
    assert small(hidden=[3, 4]).hidden == [3, 4]


def test_a_task_that_does_not_fit_is_refused():
    network = small(ConvLSTM, 3, 2, 2, out_channels=1)
    network.check_task(Task(["t2m", "sp"], 3, 2, targets="t2m"))
    with pytest.raises(InputError, match="takes its first inputs for what it forecasts"):
        network.check_task(Task(["t2m", "sp"], 3, 2, targets="sp"))
    with pytest.raises(InputError, match=r"target_steps=2.*target_steps=4"):
        network.check_task(Task(["t2m", "sp"], 3, 4, targets="t2m"))


# --- what is learnt -------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_all_frames():
    """Over F = T + T' - 1, with weights: those of the first lead for frames of the input."""
    x, y = (torch.randn(2, n, 1, 4, 6, generator=RNG) for n in (3, 2))
    network = small(PredRNNv2, decouple=0.5, sampling="never").train()
    network.sampling = type(network.sampling)("never")
    objective = Objective(network)
    total, points = objective(x, y, 0)
    frames, extra = network.teach(x, y, 0)
    truth = torch.cat([x[:, 1:], y], 1)
    torch.testing.assert_close(total / points, ((frames - truth) ** 2).mean() + extra)
    assert extra > 0
    weights = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    weighted, _ = Objective(network, weights=weights)(x, y, 0)
    every = torch.tensor([1.0, 1, 1, 3]).view(4, 1, 1, 1)
    expected = (every * (frames - truth) ** 2).mean() + extra
    torch.testing.assert_close(weighted / points, expected)


def test_missing_targets_are_left_out_and_only_targets_count():
    x, y = (torch.randn(2, n, 1, 4, 6, generator=RNG) for n in (3, 2))
    network = small(sampling="always").train()
    y[0, 0, 0, 0] = torch.nan
    total, points = Objective(network, masked=True)(x, y, 0)
    assert points == y.numel() - 6
    frames, _ = network.teach(x, y, 0)
    expected = ((frames[:, -2:] - y) ** 2).nansum()
    torch.testing.assert_close(total, expected)
    total.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)


def test_decoupled_memories_by_hand():
    """|cos| of increments that are alike is 1, of none 0; and a forecast knows nothing of it."""
    network = small(PredRNNv2, decouple=1.0)
    a = torch.randn(2, 3, 4, 5, generator=RNG)
    with torch.no_grad():
        assert network._overlap(a, a).item() == pytest.approx(1)
        assert network._overlap(a, -2 * a).item() == pytest.approx(1)
        assert network._overlap(a, torch.zeros_like(a)).item() == 0
    x = torch.randn(1, 3, 1, 4, 6, generator=RNG)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network.train()(x))


def test_the_highway_starts_nearly_closed():
    highway = small(PredRNNpp).highway
    for conv in (highway.x_concat[0], highway.z_concat[0]):
        assert 0 < conv.weight.abs().max() <= 0.001

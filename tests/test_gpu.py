"""On a GPU: what the CPU computes, resumed to the bit. STFORECAST_TEST_DEVICE=cpu tries it out."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from stforecast import Task, TrainConfig, fit, load, open_sample, predict
from stforecast.forecasting import default_bundle
from stforecast.loading import open_feed
from stforecast.models import SimVPv2, for_inference
from stforecast.models.translators_gated import GATED
from stforecast.task import initialisations
from stforecast.testing import make_weather

DEVICE = os.environ.get("STFORECAST_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU that torch can use"
)

TASK = Task("t2m", input_steps=4, target_steps=3)
CONFIG = TrainConfig(
    steps=12, batch_size=8, validate_every=6, val_windows=8, precision="fp32", device=DEVICE
)
NETWORKS = {
    "gsta": {},
    "gsta, circular, of changes": {"circular_longitude": True, "predict_change": True},
    "gsta, four layers, longer": {"encoder_layers": 4, "target_steps": 9},
    "gsta, no multiple of the stride": {"grid": (7, 13)},
    **{name: {"translator": name} for name in ("incepu", "vit", "swin", "poolformer")},
    **{name: {"translator": name} for name in ("mlpmixer", "convmixer")},
    **{name: {"translator": name} for name in GATED},
    "swin, shifted": {"translator": "swin", "grid": (18, 36)},
}


@pytest.fixture
def exact():
    """Float32 factors in training's products too; by default cuDNN rounds them to TF32."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = False
    yield
    for place, allowed in zip(places, before, strict=True):
        place.allow_tf32 = allowed


@pytest.fixture(scope="module")
def weather():
    return make_weather(120, shape=(12, 24))


@pytest.fixture(scope="module")
def validation():
    return make_weather(48, time="2002-01-01", shape=(12, 24), seed=1)


def network(name):
    torch.manual_seed(0)
    sizes = {"encoder_channels": 16, "translator_channels": 32, "translator_blocks": 3}
    options = {"grid": (16, 24), "drop_path": None, "target_steps": 4, **NETWORKS[name]}
    model = SimVPv2(4, channels=2, mlp_ratio=4.0, **sizes, **options)
    for key, weight in model.named_parameters():  # numbers that all matter
        if key.rpartition(".")[2] in ("scale1", "scale2"):
            torch.nn.init.uniform_(weight, 0.1, 0.5)
    return model, torch.randn(3, 4, 2, *model.settings["grid"])


def gap(a, b):
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / b.norm())


def tiny(**options):
    sizes = {"encoder_channels": 8, "translator_channels": 16, "translator_blocks": 2}
    options = {"circular_longitude": True, "predict_change": True} | options
    return SimVPv2(4, 3, mlp_ratio=2.0, **sizes, **options)


def certain():
    """Without stochastic depth, whose numbers each device draws for itself."""
    return tiny(drop_path=None)


def stop_at(step):
    def progress(event):
        if event["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return progress


def differing(a, b):
    ours, theirs = a.network.state_dict(), b.network.state_dict()
    return [k for k in ours if not torch.equal(ours[k].cpu(), theirs[k].cpu())]


# --- the networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_forecasts_are_those_of_the_cpu(name, exact):
    model, x = network(name)
    with torch.no_grad():
        expected = model.eval()(x)
        model.to(DEVICE)
        assert gap(model(x.to(DEVICE)), expected) < 1e-5
        with torch.autocast(DEVICE, torch.bfloat16):
            assert gap(model(x.to(DEVICE)).float(), expected) < 3e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_cpu(name, exact):
    model, x = network(name)
    given = torch.randn(3, *model.eval()(x[:1]).shape[1:])

    def gradients(model, x, given):
        x = x.clone().requires_grad_()
        output = model.train()(x)
        found = torch.autograd.grad(output, (x, *model.parameters()), given)
        return dict(zip(["input", *(n for n, _ in model.named_parameters())], found, strict=True))

    theirs = gradients(copy.deepcopy(model).double(), x.double(), given.double())
    ours = gradients(model.to(DEVICE), x.to(DEVICE), given.to(DEVICE))
    whole = torch.stack([g.norm() for g in theirs.values()]).norm()
    for key, gradient in ours.items():  # those of biases before a norm are zero but for rounding
        error = (gradient.cpu().double() - theirs[key]).norm()
        assert error < 1e-4 * theirs[key].norm() + 1e-6 * whole, key


@pytest.mark.parametrize("compile", ["auto", "never", "always"])
@pytest.mark.parametrize("name", ["gsta, circular, of changes", "incepu"])
def test_the_quick_form_forecasts_the_same(name, compile):
    """With TF32 as it is: float32 forecasts switch it off themselves, and leave it as it was."""
    if compile == "always" and DEVICE == "cpu":
        pytest.skip("compiling is tried on a GPU alone")
    model, x = network(name)
    with torch.no_grad():
        expected = model.eval()(x)
    model.to(DEVICE)
    before = torch.backends.cudnn.allow_tf32
    for precision, most in (("fp32", 1e-5), ("bf16", 3e-2)):
        quick = for_inference(model, precision=precision, compile=compile, samples=10**6)
        for batch in (3, 1):
            found = quick(x[:batch].to(DEVICE))
            assert found.dtype == torch.float32
            assert gap(found, expected[:batch]) < most, (precision, batch)
    assert torch.backends.cudnn.allow_tf32 == before


# --- training -------------------------------------------------------------------------------------


def stored(weather, feed, folder):
    """The data, and options of the feed: in memory, or streamed from a store in chunks."""
    if feed == "resident":
        return weather, {"feed": "resident"}
    xr, *_ = (pytest.importorskip(name) for name in ("xarray", "zarr", "dask"))
    weather.chunk(time=7).to_zarr(folder / "weather.zarr", consolidated=False)
    ds = xr.open_zarr(folder / "weather.zarr", chunks=None, consolidated=False)
    return ds, {"feed": "stream", "buffer": 60 * 4 * 12 * 24}


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_batches_are_those_of_the_cpu(weather, tmp_path, feed):
    ds, options = stored(weather, feed, tmp_path)
    common = {"seed": 3, **options}
    with (
        open_feed(ds, TASK, 8, device=DEVICE, **common) as ours,
        open_feed(ds, TASK, 8, device="cpu", **common) as theirs,
    ):
        for step in range(2 * ours.steps_per_epoch + 3):
            for a, b in zip(ours.batch(step), theirs.batch(step), strict=True):
                assert a.device.type == DEVICE
                assert torch.equal(a.cpu(), b), step


def losses_of(ds, config, **options):
    seen = []
    fit(ds, TASK, model=certain, config=config, progress=seen.append, **options)
    return [e["loss"] for e in seen if "loss" in e], seen[-1]["val_rmse"]


@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "clip_norm": 0.1, "ema": 0.9}], ids=str)
def test_training_takes_the_course_of_the_cpu(weather, validation, more, exact):
    config = replace(CONFIG, validate_every=3, **more)
    ours, our_rmse = losses_of(weather, config, validation=validation)
    theirs, their_rmse = losses_of(weather, replace(config, device="cpu"), validation=validation)
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert our_rmse == pytest.approx(their_rmse, rel=1e-3)


@pytest.mark.parametrize("feed", ["resident", "stream"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_resumed_gives_the_same_weights(weather, tmp_path, feed, precision):
    ds, options = stored(weather, feed, tmp_path)
    config = replace(CONFIG, precision=precision, **options)
    common = {"config": config, "model": lambda: tiny(drop_path=0.3)}
    whole = fit(ds, TASK, **common)
    assert whole.device.type == DEVICE
    with pytest.raises(KeyboardInterrupt):
        fit(ds, TASK, **common, run_dir=tmp_path / "run", progress=stop_at(5))
    assert not differing(whole, fit(ds, TASK, **common, run_dir=tmp_path / "run"))


@pytest.mark.skipif(DEVICE == "cpu", reason="compiling is tried on a GPU alone")
def test_compiled_training(weather, validation, exact):
    plain, _ = losses_of(weather, CONFIG, validation=validation)
    config = replace(CONFIG, compile="always")
    compiled, _ = losses_of(weather, config, validation=validation)
    assert compiled == pytest.approx(plain, rel=1e-3)


# --- forecasts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample():
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    return open_sample().isel(time=slice(0, 100)).load()


def test_predict_is_that_of_the_cpu(sample):
    times = initialisations(sample, load(default_bundle()).task, stride=20)
    ours, theirs = (
        predict(sample, init_time=times, steps=15, device=device)["2m_temperature"].values
        for device in (DEVICE, "cpu")
    )
    assert np.abs(ours - theirs).max() < 1e-3
    half = load(default_bundle()).to(DEVICE, precision="bf16")
    found = half.predict(sample, init_time=times, steps=15)["2m_temperature"].values
    assert np.abs(found - theirs).max() < 0.3


def test_a_bundle_from_the_gpu_loads_on_the_cpu(weather, validation, tmp_path):
    pytest.importorskip("dask")
    forecaster = fit(weather, TASK, model=tiny, config=CONFIG, validation=validation)
    loaded = load(forecaster.save(tmp_path / "bundle"))
    assert loaded.device.type == "cpu" and not differing(forecaster, loaded)  # noqa: PT018
    options = {"init_time": initialisations(validation, TASK)}
    ours, theirs = (
        f.predict(validation, **options)["2m_temperature"].values for f in (forecaster, loaded)
    )
    assert np.abs(ours - theirs).max() < 1e-3

"""LPIPS: the public package's values with weights in closed form, and files that are no weights."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from stforecast.errors import InputError
from stforecast.evaluation.evaluate import evaluate
from stforecast.evaluation.lpips import load_lpips

LEAD = "prediction_timedelta"
SHAPES = {
    **{f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate((64, 192, 384, 256, 256))},
    "net.slice1.0.bias": (64,),
    "net.slice1.0.weight": (64, 3, 11, 11),
    "net.slice2.3.bias": (192,),
    "net.slice2.3.weight": (192, 64, 5, 5),
    "net.slice3.6.bias": (384,),
    "net.slice3.6.weight": (384, 192, 3, 3),
    "net.slice4.8.bias": (256,),
    "net.slice4.8.weight": (256, 384, 3, 3),
    "net.slice5.10.bias": (256,),
    "net.slice5.10.weight": (256, 256, 3, 3),
}
# lpips 0.1.4, LPIPS(net="alex", version="0.1"), normalize=True, with these weights and pictures.
EXPECTED = [0.01919711, 0.01901096]


def make_weights() -> dict[str, torch.Tensor]:
    weights = {}
    for i, (name, shape) in enumerate(sorted(SHAPES.items())):
        wave = np.sin(np.arange(math.prod(shape)) * (0.7 + 0.1 * i) + i)
        size = math.prod(shape[1:]) if len(shape) > 1 else 10
        values = torch.from_numpy((wave / size**0.5).reshape(shape).astype("f4"))
        weights[name] = values.abs() if name.startswith("lin") else values
    return weights


def make_pictures():
    y, x = np.mgrid[:40, :52]
    first = [0.5 + 0.5 * np.sin(0.3 * x + c) * np.cos(0.2 * y - c) for c in range(3)]
    p = np.stack(first)[None].astype("f4")
    q = np.roll(p, 3, axis=-1) * 0.8
    return np.concatenate([p, q]), np.concatenate([q, p[:, ::-1]])


@pytest.fixture(scope="module")
def weights():
    return make_weights()


@pytest.fixture(scope="module")
def measure(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "all.safetensors"
    save_file(weights, path)
    return load_lpips(path)


def test_the_public_package_agrees(measure):
    a, b = make_pictures()
    np.testing.assert_allclose(measure(a, b), EXPECTED, rtol=2e-5)
    np.testing.assert_allclose(measure(b, a), EXPECTED, rtol=2e-5)
    np.testing.assert_array_equal(measure(a, a), 0)


def test_grey_is_taken_three_times(measure):
    a, b = (p[:, :1] for p in make_pictures())
    expected = measure(np.repeat(a, 3, axis=1), np.repeat(b, 3, axis=1))
    np.testing.assert_allclose(measure(a, b), expected, rtol=1e-6)
    assert (expected > 1e-3).all()


def test_two_files_as_others_publish_them(weights, tmp_path):
    slices = {"1.0": 0, "2.3": 3, "3.6": 6, "4.8": 8, "5.10": 10}
    trunk = {
        f"features.{number}.{kind}": weights[f"net.slice{key}.{kind}"]
        for key, number in slices.items()
        for kind in ("weight", "bias")
    }
    torch.save(trunk | {"classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "alexnet.pth")
    linear = {k: v for k, v in weights.items() if k.startswith("lin")}
    torch.save(linear, tmp_path / "alex.pth")
    both = load_lpips([tmp_path / "alexnet.pth", tmp_path / "alex.pth"])
    np.testing.assert_allclose(both(*make_pictures()), EXPECTED, rtol=2e-5)
    with pytest.raises(InputError, match=r"alex\.pth: .* AlexNet's convolutions are missing"):
        load_lpips(tmp_path / "alex.pth")
    with pytest.raises(InputError, match="the linear layers are missing"):
        load_lpips(tmp_path / "alexnet.pth")


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_files_that_are_no_weights(weights, tmp_path):
    with pytest.raises(InputError, match=r"no file .*none\.pth: LPIPS needs weights that do not"):
        load_lpips(tmp_path / "none.pth")
    torch.save({"features.0.weight": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("hostile.pth", "pickle.pth", "text.pth", "text.safetensors", "empty.pth"):
        with pytest.raises(InputError, match=name):
            load_lpips(tmp_path / name)
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="holds Tensor, expected tensors by name"):
        load_lpips(tmp_path / "tensor.pth")
    save_file(weights | {"net.slice1.0.bias": torch.zeros(3)}, tmp_path / "vgg.safetensors")
    with pytest.raises(InputError, match="AlexNet's convolutions are missing or of another shape"):
        load_lpips(tmp_path / "vgg.safetensors")


@pytest.mark.parametrize("shape", [(2, 2, 40, 40), (2, 3, 30, 40), (3, 40, 40)])
def test_pictures_that_do_not_fit(measure, shape):
    with pytest.raises(InputError, match="1 or 3 channels and at least 31 x 31"):
        measure(np.zeros(shape), np.zeros(shape))


# --- in evaluate ----------------------------------------------------------------------------------


def make_pair(names):
    a, b = make_pictures()
    time = np.arange(3) * np.timedelta64(1, "s").astype("m8[ns]") + np.datetime64(0, "ns")
    truth = {
        n: (("time", "y", "x"), np.concatenate([b[:1, i], b[:, i]])) for i, n in enumerate(names)
    }
    forecast = {n: (("time", LEAD, "y", "x"), a[:, None, i]) for i, n in enumerate(names)}
    return (
        xr.Dataset(forecast, {"time": time[:2], LEAD: time[1:2] - time[0]}),
        xr.Dataset(truth, {"time": time}),
    )


def test_channels_are_looked_at_together(measure, monkeypatch):
    forecast, truth = make_pair(("red", "green", "blue"))
    options = {"metrics": ("lpips", "mse"), "data_range": 1, "lpips": measure, "by": "time"}
    result = evaluate(forecast, truth, **options)
    np.testing.assert_allclose(result["frames"].sel(metric="lpips"), EXPECTED, rtol=2e-5)
    overall = result["frames_overall"].sel(metric="lpips")
    assert float(overall) == pytest.approx(np.mean(EXPECTED), rel=2e-5)
    assert np.isnan(result["green"].sel(metric="lpips")).all()  # no channel has one by itself
    # Blocks of one initialisation, channels in another order, values up to 255.
    monkeypatch.setattr("stforecast.evaluation.sums.BLOCK", 1)
    other = [255 * ds[["blue", "red", "green"]] for ds in (forecast, truth)]
    again = evaluate(*other, **(options | {"data_range": 255}))
    np.testing.assert_allclose(again["frames"].sel(metric="lpips"), EXPECTED, rtol=2e-5)


def test_one_channel_is_grey(measure):
    result = evaluate(*make_pair(("grey",)), metrics="lpips", data_range=1, lpips=measure)
    a, b = (p[:, :1] for p in make_pictures())
    np.testing.assert_allclose(result["frames_overall"], measure(a, b).mean(), rtol=1e-5)
    np.testing.assert_array_equal(result["grey"], result["frames"])


def test_weights_are_the_users(tmp_path):
    pair = make_pair(("grey",))
    with pytest.raises(InputError, match="needs weights that do not come with this package"):
        evaluate(*pair, metrics="lpips", data_range=1)
    with pytest.raises(InputError, match="no file"):
        evaluate(*pair, metrics="lpips", data_range=1, lpips=tmp_path / "alex.pth")
    with pytest.raises(InputError, match="lpips depend on data_range"):
        evaluate(*pair, metrics="lpips", lpips=abs)

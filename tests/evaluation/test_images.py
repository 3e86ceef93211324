"""SSIM and PSNR: closed forms, scikit-image, the authors' code's figures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stforecast.errors import InputError
from stforecast.evaluation import images
from stforecast.evaluation.images import paper_psnr, paper_ssim, psnr, ssim, wrapped_error

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "public"
CASES = ["caltech_like", "large_error", "mmnist_like", "taxibj_like"]
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"no golden files at {GOLDEN}")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def scikit(a, b, data_range):
    pairs = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
    each = [structural_similarity(p, q, data_range=data_range) for p, q in pairs]
    return np.reshape(each, a.shape[:-2])


# --- closed forms ---------------------------------------------------------------------------------


def test_equal_pictures(rng):
    picture = rng.random((3, 12, 9))
    np.testing.assert_allclose(ssim(picture, picture, data_range=1), 1, rtol=1e-14)
    assert np.isinf(psnr(picture, picture, data_range=1)).all()
    assert np.isinf(paper_psnr(picture, picture)).all()


def test_similarity_of_flat_pictures_is_that_of_their_means():
    a, b = np.full((8, 11), 0.6), np.full((8, 11), 0.3)
    c1 = 0.01**2  # nothing varies, so only the means count
    expected = (2 * 0.18 + c1) / (0.36 + 0.09 + c1)
    assert ssim(a, b, data_range=1) == pytest.approx(expected, rel=1e-12)


def test_similarity_of_one_window_by_hand(rng):
    a, b = rng.random((2, 7, 7))
    ma, mb = a.mean(), b.mean()
    (va, cov), (_, vb) = np.cov(a.ravel(), b.ravel())  # sample covariance: n - 1
    c1, c2 = (0.01 * 3) ** 2, (0.03 * 3) ** 2
    expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    assert ssim(a, b, data_range=3) == pytest.approx(expected, rel=1e-12)


def test_inverted_contrast_is_negative(rng):
    picture = rng.random((20, 20))
    assert ssim(1 - picture, picture, data_range=1) < -0.9


@pytest.mark.parametrize(("span", "error", "expected"), [(1, 0.1, 20), (255, 25.5, 20), (2, 2, 0)])
def test_ratio_of_a_constant_error(span, error, expected):
    truth = np.linspace(0, span, 30).reshape(5, 6)
    assert psnr(truth + error, truth, data_range=span) == pytest.approx(expected)


def test_ratio_is_of_the_mean_square_of_a_picture():
    truth = np.zeros((2, 2, 2))
    image = np.array([[[0.2, 0], [0, 0]], [[0, 0], [0, 0.4]]])
    np.testing.assert_allclose(psnr(image, truth, data_range=1), -10 * np.log10([0.01, 0.04]))


def test_eight_bits_wrap_around():
    # 100 -> 84 = -16 -> 240, and 240 * 240 = 57600 = 225 * 256 + 0: an error of 16 counts nothing.
    truth = np.full((3, 4), 100 / 255 + 1e-4)
    assert wrapped_error(truth - 16 / 255, truth) == 0
    # 17 * 17 = 289 = 256 + 33
    assert wrapped_error(truth + 17 / 255, truth) == pytest.approx(33 / 255**2)
    assert wrapped_error(truth + 5 / 255, truth) == pytest.approx(25 / 255**2)
    assert psnr(truth + 17 / 255, truth, data_range=1) < paper_psnr(truth + 17 / 255, truth) - 9


def test_the_papers_measures_clip_the_forecast():
    truth = np.zeros((9, 9))
    truth[3:6, 3:6] = 1
    wild = np.where(truth > 0, 7.0, -3.0)
    assert paper_ssim(wild, truth) == pytest.approx(1)
    assert np.isinf(paper_psnr(wild, truth))
    assert ssim(wild, truth, data_range=1) < 0.9  # ours does not


def test_truth_may_overshoot_a_little(rng):
    truth = rng.uniform(0, 1.1, (2, 12, 10))
    image = rng.random((2, 12, 10))
    np.testing.assert_allclose(paper_ssim(image, truth), scikit(image, truth, 2), atol=1e-6)
    np.testing.assert_allclose(paper_psnr(image, truth), paper_psnr(image, truth.clip(0, 1)))
    for measure in (paper_ssim, paper_psnr):
        with pytest.raises(InputError, match="truth runs from"):
            measure(2 * image - 1, 2 * truth - 1)  # on [-1, 1]


# --- others ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(7, 24),
    width=st.integers(7, 24),
    mean=st.floats(-300, 300),
    size=st.floats(0.01, 20),
    span=st.floats(0.1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_scikit_image_agrees(height, width, mean, size, span, seed):
    rng = np.random.default_rng(seed)
    a = mean + size * rng.normal(size=(2, height, width))
    b = a + size * rng.uniform(0, 2) * rng.normal(size=a.shape)
    np.testing.assert_allclose(ssim(a, b, data_range=span), scikit(a, b, span), atol=1e-6)
    expected = [peak_signal_noise_ratio(q, p, data_range=span) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(a, b, data_range=span), expected, atol=1e-6)


def test_many_pictures_at_once_are_each_by_itself(rng, monkeypatch):
    a, b = rng.random((2, 3, 5, 2, 16, 9)).astype("float32")
    whole = ssim(a, b, data_range=1)
    assert whole.shape == (3, 5, 2)
    np.testing.assert_allclose(whole, scikit(a, b, 1), atol=1e-6)
    monkeypatch.setattr(images, "BLOCK", 4 * 16 * 9)
    np.testing.assert_array_equal(ssim(a, b, data_range=1), whole)
    assert ssim is ssim
    assert psnr is psnr


def golden(name):
    case = json.loads((GOLDEN / f"metric_{name}.json").read_text())
    with np.load(GOLDEN / f"metric_{name}.npz") as arrays:
        return case, arrays["pred"], arrays["true"]


@needs_golden
@pytest.mark.parametrize("name", CASES)
def test_the_authors_code(name):
    case, pred, true = golden(name)
    clipped = np.clip(pred, 0, 1)
    # Their frames' values are means over channels (SSIM) or of the channels' mean error (PSNR).
    similarity = paper_ssim(pred, true).mean()
    ratio = np.mean(-10 * np.log10(((clipped - true) ** 2).mean(axis=(2, 3, 4), dtype="f8")))
    wrapped = np.mean(-10 * np.log10(wrapped_error(pred, true).mean(axis=2)))
    for key in ("openstl_float32", "openstl_float64_inputs"):
        assert similarity == pytest.approx(case[key]["ssim"], abs=1e-6)
        assert ratio == pytest.approx(case[key]["psnr"], abs=1e-6)
    old = case["old_simvp_repos"]
    assert similarity == pytest.approx(old["ssim"], abs=1e-6)
    assert wrapped == pytest.approx(old["psnr_uint8_wraparound"], abs=1e-6)
    one = ssim(clipped, true, data_range=1).mean()
    assert one == pytest.approx(case["extra"]["ssim_if_data_range_were_1"], abs=1e-6)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [0, -1, float("nan"), float("inf")])
def test_a_range_must_be_one(span):
    for measure in (ssim, psnr):
        with pytest.raises(InputError, match="positive number"):
            measure(np.zeros((9, 9)), np.ones((9, 9)), data_range=span)


def test_pictures_that_do_not_fit():
    with pytest.raises(InputError, match="one shape"):
        ssim(np.zeros((9, 9)), np.zeros((9, 8)), data_range=1)
    with pytest.raises(InputError, match=r"one shape, found \(9,\)"):
        psnr(np.zeros(9), np.zeros(9), data_range=1)
    with pytest.raises(InputError, match="6 x 9"):
        ssim(np.zeros((6, 9)), np.zeros((6, 9)), data_range=1)
    with pytest.raises(InputError, match="differ in shape"):
        wrapped_error(np.zeros((9, 9)), np.zeros((9, 8)))
    for measure in (paper_ssim, paper_psnr):
        with pytest.raises(InputError, match=r"\[0, 1\]; the truth runs from 0 to 255"):
            measure(np.zeros((9, 9)), np.linspace(0, 255, 81).reshape(9, 9))
    with pytest.raises(TypeError, match="data_range"):
        ssim(np.zeros((9, 9)), np.zeros((9, 9)))

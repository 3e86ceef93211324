"""A matrix that is multiplied many times: one gradient, the same as torch's sum of them."""

import pytest
import torch

from stforecast.models.graph.sums import Reused


def made(dtype=torch.float64):
    """A matrix for each of 5 nodes (3, 3), what it multiplies (5, 2, 3), and a leaf behind it."""
    torch.manual_seed(0)
    leaf = torch.randn(5, 3, 3, dtype=dtype, requires_grad=True)
    return leaf, torch.randn(5, 2, 3, dtype=dtype, requires_grad=True)


def chain(x, product, steps=4):
    for _ in range(steps):
        x = torch.tanh(product(x))
    return x


def test_the_gradient_is_the_sum_of_all():
    leaf, x = made()
    reused = Reused(leaf * 2)
    found = torch.autograd.grad(chain(x, reused.behind).sum(), (leaf, x))
    expected = torch.autograd.grad(chain(x, lambda v: v @ (leaf * 2)).sum(), (leaf, x))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_passes_do_not_mix():
    """What a pass leaves behind that did not go for the matrix counts in no other."""
    leaf, x = made()
    reused = Reused(leaf)
    short = chain(x, reused.behind, 2)
    long = chain(short, reused.behind)
    (expected,) = torch.autograd.grad(chain(x, leaf.__rmatmul__, 2).sum(), leaf)
    torch.autograd.grad(long.sum(), x, retain_graph=True)  # not for the leaf
    for _ in range(2):
        (found,) = torch.autograd.grad(short.sum(), leaf, retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", [False, True])
def test_without_gradients_it_is_a_product(trained):
    leaf, x = made()
    leaf.requires_grad_(trained)
    with torch.set_grad_enabled(not trained):
        assert torch.equal(Reused(leaf).behind(x), x @ leaf)


def test_autocast_rounds_products():
    leaf, x = made(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = chain(x, Reused(leaf).behind)
        expected = chain(x, leaf.__rmatmul__)
    assert y.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    y.float().sum().backward()
    found, leaf.grad = leaf.grad, None
    expected.float().sum().backward()
    torch.testing.assert_close(found, leaf.grad, rtol=0.03, atol=0.03)

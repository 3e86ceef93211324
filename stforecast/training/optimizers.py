"""Optimisers: Adam, AdamW, and Muon with AdamW for what is no matrix, behind one door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError
from .config import TrainConfig

_ADAM = ("step", "exp_avg", "exp_avg_sq")
#: What an optimiser keeps of a parameter.
_STATE = {"Adam": _ADAM, "AdamW": _ADAM, "Muon": ("momentum_buffer",)}
_COUNT = torch.float32  # as torch counts steps


class Optimizer:
    """One or two of torch's optimisers that take their steps together.

    Parameters
    ----------
    network : torch.nn.Module
        Whose weights are trained, on its device.
    config : TrainConfig
        ``optimizer``, ``weight_decay`` and ``epsilon``.

    Raises
    ------
    InputError
        If Muon is asked for, and torch is too old or there is no matrix.

    References
    ----------
    Kingma and Ba (2015); Loshchilov and Hutter (2019); Jordan (2024), "Muon: an optimizer for
    hidden layers in neural networks", with the scale of Liu et al. (2025), "Muon is scalable for
    LLM training", section 2.2, so that learning rates for Adam suit both parts.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        weights = list(network.parameters())
        fused = any(w.is_cuda for w in weights)
        decay = config.weight_decay
        # Muon steps on 2-D views that share the weights' memory.
        self._views: list[tuple[Tensor, nn.Parameter]] = []
        self.parts: list[torch.optim.Optimizer] = []
        if config.optimizer == "muon":
            if not hasattr(torch.optim, "Muon"):
                raise InputError(
                    f"optimizer='muon' needs torch 2.9 or later, found {torch.__version__}: "
                    f"update torch, or give optimizer='adamw'"
                )
            matrices = [w for w in weights if _is_matrix(w)]
            if not matrices:
                raise InputError("optimizer='muon' needs a network with matrices: give 'adamw'")
            # `view`, not `flatten`: where memory cannot be shared it raises and does not copy.
            self._views = [(w, nn.Parameter(w.detach().view(len(w), -1))) for w in matrices]
            self.parts.append(
                torch.optim.Muon(
                    [view for _, view in self._views],
                    lr=config.learning_rate,
                    weight_decay=decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
            weights = [w for w in weights if not _is_matrix(w)]
        if weights:
            kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
            rate, eps = config.learning_rate, config.epsilon
            self.parts.append(kind(weights, lr=rate, weight_decay=decay, eps=eps, fused=fused))

    def step(self, rate: float, beta: float) -> None:
        """Take a step, and forget the gradients.

        Parameters
        ----------
        rate : float
            Learning rate.
        beta : float
            Adam's first; Muon's momentum stays 0.95.
        """
        for weight, view in self._views:
            view.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
                if "betas" in group:
                    group["betas"] = (beta, 0.999)
            part.step()
            part.zero_grad(set_to_none=True)
        for weight, _ in self._views:
            weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The state of parameter i as ``<i>.<name>``, counted through the parts."""
        return {
            f"{first + i}.{key}": value
            for part, first in self._numbered()
            for i, state in part.state_dict()["state"].items()
            for key, value in state.items()
        }

    def forms(self, found: Iterable[str]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Data type and shape of the state of each parameter that one of the names in `found` has.

        A parameter has a state once it had a gradient; then it has all of it.
        """
        have = {name.partition(".")[0] for name in found}
        return {
            f"{first + i}.{key}": (_COUNT, ()) if key == "step" else (w.dtype, tuple(w.shape))
            for part, first in self._numbered()
            for i, w in enumerate(w for group in part.param_groups for w in group["params"])
            for key in _STATE.get(type(part).__name__, _ADAM)
            if str(first + i) in have
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` gave."""
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            i, key = name.split(".", 1)
            states.setdefault(int(i), {})[key] = value
        for part, first in self._numbered():
            count = sum(len(group["params"]) for group in part.param_groups)
            mine = {i - first: states[i] for i in states if first <= i < first + count}
            part.load_state_dict(part.state_dict() | {"state": mine})
            for parameter, moments in part.state.items():
                for key, value in moments.items():  # in memory as the weight is: channels last, say
                    if value.shape == parameter.shape:
                        moments[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def _numbered(self) -> Iterable[tuple[torch.optim.Optimizer, int]]:
        """The parts, and the number of the first parameter of each."""
        first = 0
        for part in self.parts:
            yield part, first
            first += sum(len(group["params"]) for group in part.param_groups)


def _is_matrix(weight: Tensor) -> bool:
    """Whether a weight maps several channels to several, at one point."""
    shape = weight.shape
    return len(shape) >= 2 and min(shape[:2]) > 1 and weight.numel() == shape[0] * shape[1]

"""Weights of the authors' public code for the graph models, read into our networks by name."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ..openstl import read_tensors
from ..registry import misfit
from ..surroundings import own_defaults
from .base import GraphNetwork
from .mesh import Mesh

#: Where each network of the public code is here: module and class.
_HOMES = {
    "CLCRN": "clcrn:CLCRN",
    "CLCSTN": "clcstn:CLCSTN",
    "DCRNN": "dcrnn:DCRNN",
    "GConvGRU": "gcgru:GCGRU",
    "TGCN": "tgcn:TGCN",
    "STGCN": "stgcn:STGCN",
    "MSTGCN": "mstgcn:MSTGCN",
    "ASTGCN": "astgcn:ASTGCN",
    "AGCRN": "agcrn:AGCRN",
}


def load_public(
    path: str | os.PathLike[str], *, model: str, mesh: Mesh, **hyper_parameters: Any
) -> GraphNetwork:
    """Read a graph network that public code trained.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or ``.pth`` / ``.ckpt`` (read with ``weights_only=True``: no code runs).
    model : str
        That code's name of it: "CLCRN", "CLCSTN", "DCRNN", "GConvGRU", "TGCN", "STGCN", "MSTGCN",
        "ASTGCN" or "AGCRN" as `EDAPINENUT/CLCRN` has them. With ``orig_`` before it, as the model's
        own repository has it; with ``clean_``, the former with its fault put right.
    mesh : Mesh
        Of the nodes that it was trained on.
    **hyper_parameters
        By that code's names.

    Returns
    -------
    GraphNetwork
        In evaluation mode.

    Raises
    ------
    InputError
        If the model or a hyper-parameter is unknown, or tensors do not fit.
    """
    form, _, name = model.rpartition("_")
    if name not in _HOMES or form not in ("", "orig", "clean"):
        raise InputError(f"no public graph network {model!r}; there are {', '.join(_HOMES)}")
    module, _, kind = _HOMES[name].partition(":")
    network_class: Any = getattr(import_module(f"{__package__}.{module}"), kind)
    with own_defaults(random=torch.device("cpu")):
        network, tensors = network_class.from_public(
            read_tensors(Path(path)), mesh, form or "table", hyper_parameters
        )
    shapes = ({k: v.shape for k, v in t.items()} for t in (network.state_dict(), tensors))
    if listing := misfit(*shapes):
        raise InputError(f"the weights in {path} do not fit these hyper-parameters: {listing}")
    network.load_state_dict(tensors)
    return network.eval()

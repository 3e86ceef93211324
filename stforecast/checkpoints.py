"""What a training run leaves on disk: its history, and checkpoints that it can go on from.

A checkpoint holds the network, the best weights so far, the optimiser's state and the random state
(``state.safetensors``), and the step, scores and history (``state.json``). The feed's position and
the learning rate follow from the step, so they need no state. The last two are kept.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .conventions import InputError
from .files import replacing
from .forecaster import Forecaster, plain_tensors

if TYPE_CHECKING:
    from .training import TrainConfig

logger = logging.getLogger(__name__)


class Run:
    """What a run leaves on disk: history, and checkpoints it can go on from."""

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None,
        forecaster: Forecaster,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        steps: int,
        resume: str,
    ) -> None:
        self.directory = None if run_dir is None else Path(run_dir)
        self.network, self.optimizer = forecaster.network, optimizer
        self.step, self.best, self.history = 0, {}, []  # type: ignore[var-annotated]
        self._best_weights: dict[str, Tensor] = {}
        self._seconds, self._since = 0.0, time.monotonic()
        settings = getattr(forecaster.network, "settings", type(forecaster.network).__name__)
        # What makes two runs the same run: going on with other settings would be neither of them.
        self._identity = json.loads(
            json.dumps(
                {
                    "task": forecaster.task.to_dict(),
                    "model": settings,
                    "config": asdict(replace(config, steps=steps, epochs=1, device=None)),
                    "period": forecaster.training["period"],
                }
            )
        )
        if resume not in ("auto", "never"):
            raise InputError(f"resume must be 'auto' or 'never', found {resume!r}")
        if self.directory is not None:
            if resume == "auto":
                self._resume()  # refuses another run's directory before anything is written there
            with replacing(self.directory / "run.json") as path:  # also: may we write here?
                path.write_text(json.dumps(self._identity, indent=1) + "\n")
            if resume == "never":  # or its later steps would outlive, and outrank, the new ones
                for old in self.directory.glob("checkpoint-*"):
                    shutil.rmtree(old)
                (self.directory / "history.jsonl").unlink(missing_ok=True)

    def record(self, event: Mapping[str, Any]) -> None:
        """Note a validation; keep the best weights; write history and a checkpoint."""
        self.step = event["step"]
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        entry = {**event, "seconds": round(self._seconds, 1)}
        entry.pop("samples", None)
        self.history.append(entry)
        logger.info(
            "step %d of %d: %s",
            event["step"],
            event["steps"],
            ", ".join(f"{k} {v:.4g}" for k, v in event.items() if isinstance(v, float)),
        )
        score = event.get("valid_score")
        if score is not None and score < self.best.get("valid_score", math.inf):
            self.best = {k: v for k, v in entry.items() if k == "step" or k.startswith("valid")}
            self._best_weights = {
                k: v.detach().clone() for k, v in self.network.state_dict().items()
            }
        if self.directory is not None:
            with replacing(self.directory / "history.jsonl") as path:
                path.write_text("".join(json.dumps(line) + "\n" for line in self.history))
            self._write_checkpoint(self.directory)

    def take_best(self) -> None:
        """Put the best weights into the network, where there was a validation."""
        if self._best_weights:
            self.network.load_state_dict(self._best_weights)

    def _write_checkpoint(self, directory: Path) -> None:
        from safetensors.torch import save_file

        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self._best_weights.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        tensors["rng"] = torch.get_rng_state()
        state = {"step": self.step, "best": self.best, "history": self.history}
        state |= {"seconds": self._seconds, "identity": self._identity}
        with replacing(directory / f"checkpoint-{self.step:08d}") as new:
            new.mkdir()
            save_file(plain_tensors(tensors), new / "state.safetensors")
            (new / "state.json").write_text(json.dumps(state))
        for old in sorted(directory.glob("checkpoint-*"))[:-2]:  # the last, and the one before it
            shutil.rmtree(old)

    def _resume(self) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        assert self.directory is not None
        for path in sorted(self.directory.glob("checkpoint-*"), reverse=True):
            try:
                state = json.loads((path / "state.json").read_text())
                tensors = load_file(path / "state.safetensors")
            except (OSError, ValueError, SafetensorError) as error:
                logger.warning("%s is damaged (%s); taking the one before it", path, error)
                continue
            if state["identity"] != self._identity:
                other = [k for k in self._identity if state["identity"].get(k) != self._identity[k]]
                raise InputError(
                    f"{self.directory} holds a run with other settings ({', '.join(other)} "
                    f"differ); give another directory, or resume='never' to start anew there"
                )
            self.network.load_state_dict(_under("network.", tensors))
            self._best_weights = _under("best.", tensors)
            optimizer = self.optimizer.state_dict()
            for name, value in _under("optimizer.", tensors).items():
                i, key = name.split(".", 1)
                optimizer["state"].setdefault(int(i), {})[key] = value
            self.optimizer.load_state_dict(optimizer)
            torch.set_rng_state(tensors["rng"])
            self.step, self.best, self.history = state["step"], state["best"], state["history"]
            self._seconds = state["seconds"]
            logger.info("going on from %s", path)
            return


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

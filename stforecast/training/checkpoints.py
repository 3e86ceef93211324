"""What a training run leaves on disk, and how the same call goes on from it to the bit.

The run's directory holds ``run.json`` (which run this is), ``history.jsonl`` (a line a validation),
``run.lock`` while it goes on, the last two checkpoints, and those of ``keep_checkpoints``.
A checkpoint is a directory named after its step, ``checkpoint-00000120``, with two files:

``state.safetensors``
    ``network.*``: weights and buffers. ``average.*``: their moving average, where there is one.
    ``normalizer.*``: mean and standard deviation of the data. ``optimizer.<i>.*``: the state of
    parameter i.
    ``best.*``: the weights with the best validation so far. ``rng.cpu`` and, on a GPU,
    ``rng.cuda``: torch's random generators. ``loss_sum``: the sum of the losses since the last
    report. The last three are those of rank 0; those of rank 1 begin with ``rank1.``, and so on.
``state.json``
    ``step``; ``losses``, how many ``loss_sum`` holds; ``best``, step and scores of the best
    weights; ``history``, all of it; ``seconds`` of training; ``ranks``, how many processes trained;
    ``identity``, the task, network, settings (seed included), period, windows and initial weights
    that make two runs the same run; ``format``, ``version``, ``library``; ``tensors``, how many
    there are; ``files``, the SHA-256 of every other file; ``sha256``, its own.

Nothing else is needed: the feed's position, the sample order, the learning rate and the place in
the epoch are functions of the step and the settings (see :mod:`stforecast.loading.feeds`), and how
long nothing has got better follows from the history. Training draws from torch's generators alone,
or from one that follows from seed, step and rank (:mod:`stforecast.training.objective`).

Of several processes rank 0 writes and reads all of it, and sends the others what they need.

A checkpoint is written under another name, forced to disk with its directory and renamed; only then
history follows and the oldest checkpoint goes. So whenever a run is killed, the last checkpoint is
whole. One that was altered since is known by its checksums, or by what it lacks
(:mod:`stforecast.training.checkpoint_files`), set aside, and the one before is taken.
The step alone says which is the latest: no clock does.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DivergenceError, InputError
from ..files import locked, replacing
from ..forecasting.bundle import over, plain_tensors, under
from ..forecasting.forecaster import Forecaster
from ..package import __version__
from .checkpoint_files import (
    Checkpoint,
    best_of,
    differences,
    find_checkpoints,
    forms,
    misfit,
    read_checkpoint,
    sealed,
    sha256,
    step_of,
    write_checkpoint,
)
from .distributed import World
from .ema import Average
from .objective import Objective
from .optimizers import Optimizer

if TYPE_CHECKING:
    from ..loading.base import Feed
    from .config import TrainConfig

__all__ = ["KEPT", "Run", "read_checkpoint", "sealed"]

logger = logging.getLogger(__name__)

KEPT = 2  # checkpoints: the last, and the one before it
#: What a killed run had begun to write.
_BEGUN = re.compile(r"\.(checkpoint-\d+|history|run|log|about|loss)\.\w+\.part(\.\w+)?")
#: Settings that may change from call to call: they say where and how long, not what.
_FREE = {"device": None, "checkpoint_every": None, "minutes": None, "patience": None}
#: What of a run's identity can be read; the others are checksums.
_TOLD = ("task", "model", "config", "period", "validation period")
_ANEW = "resume='never' (--resume never)"
_PATIENCE = 2.0  # s for the lock of a killed run, which goes when its memory is cleared


class Run:
    """A training run and what it leaves on disk; use it in a ``with`` block.

    Entering it takes the directory's lock and goes on from the last good checkpoint, if there is
    one: into the network, its average, the normaliser, the optimiser and the random generators.
    Leaving it waits for the checkpoint that is being written.

    Parameters
    ----------
    run_dir : path-like or None
        The directory; nothing is written without one.
    objective, forecaster, optimizer, average, config, feed
        What is trained, and how.
    steps : int
        Of the whole run.
    resume : {"auto", "never"}
        As in :func:`stforecast.fit`.
    about : mapping
        What the run is: ``period``, ``validation_period``, and what else its forecaster will tell.
    world : World, optional
        The processes that train together; each has a Run.

    Attributes
    ----------
    step : int
        Steps done.
    loss_sum, losses : Tensor, int
        Sum and number of the losses since the last report.
    best : dict
        Step and scores of the best validation.
    history : list of dict
        All validations.
    stopped : dict
        Why and where training ended before its last step, if it did.

    Raises
    ------
    InputError
        On entering: the directory cannot be written, another process trains there, it holds another
        run, or none of its checkpoints is whole. Later: a checkpoint cannot be written.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None,
        objective: Objective,
        forecaster: Forecaster,
        optimizer: Optimizer,
        average: Average,
        config: TrainConfig,
        feed: Feed,
        steps: int,
        resume: str,
        about: Mapping[str, Any],
        world: World | None = None,
    ) -> None:
        if resume not in ("auto", "never"):
            raise InputError(f"resume must be 'auto' or 'never', found {resume!r}")
        self.directory = None if run_dir is None else Path(run_dir)
        self.network, self.optimizer, self.average = objective.network, optimizer, average
        self.world, self._about, self._steps = world or World(), dict(about), steps
        self.step, self.best, self.history = 0, {}, []  # type: ignore[var-annotated]
        self.stopped: dict[str, Any] = {}
        self.loss_sum = torch.zeros((), device=forecaster.device, dtype=forecaster.dtype)
        self.losses = 0
        self._normalizer, self._resume = forecaster.normalizer, resume
        self._best_weights: dict[str, Tensor] = {}
        self._seconds, self._since = 0.0, time.monotonic()
        self._keep = config.keep_checkpoints
        settings = getattr(self.network, "settings", type(self.network).__name__)
        same = (
            replace(config, feed=feed.kind, steps=steps, epochs=1, keep_checkpoints=()).to_dict()
            | _FREE
        )
        # What makes two runs the same run: going on with other settings would be neither of them.
        self._identity = json.loads(
            json.dumps(
                {
                    "task": forecaster.task.to_dict(),
                    "model": settings,
                    "config": same,
                    "period": about["period"],
                    "validation period": about.get("validation_period"),
                    "windows": sha256(feed.starts.astype("<i8").tobytes()),
                    "warm_start": about.get("warm_start", {}).get("sha256"),
                }
            )
        )
        #: What the run is, for its log.
        self.description = {
            "task": forecaster.task.to_dict(),
            "network": {"name": type(self.network).__name__, "settings": settings},
            "parameters": sum(p.numel() for p in forecaster.network.parameters()),
            "windows": len(feed.starts),
            "ranks": self.world.size,
            **about,
        }
        self._open = ExitStack()
        self._pending: Future[None] | None = None

    def __enter__(self) -> Run:
        if self.directory is None:
            return self
        with ExitStack() as opening:
            self._restore(self.world.from_main(partial(self._opened, self.directory, opening)))
            if self.world.is_main:
                with self._explained("the files of the run"):
                    with replacing(self.directory / "run.json") as path:
                        path.write_text(json.dumps(self._identity, indent=1) + "\n")
                    if self.step:  # what was noted after the checkpoint, or torn, is cut
                        self._write_history(self.directory, self.history)
            self._writer = opening.enter_context(
                ThreadPoolExecutor(1, thread_name_prefix="stforecast-checkpoint")
            )
            self._open = opening.pop_all()
        return self

    def _opened(self, directory: Path, opening: ExitStack) -> Checkpoint | None:
        """Lock and clear the directory; return its last checkpoint, if it has any."""
        lock = locked(directory / "run.lock", f"training in {directory}", wait=_PATIENCE)
        self._is_ours = opening.enter_context(lock)
        with self._explained("the files of the run"):
            for path in directory.iterdir():
                if _BEGUN.fullmatch(path.name):
                    _remove(path)
            if self._resume != "never":
                return self._latest(directory)
            # Or the old one's later steps would outlive the new ones.
            (directory / "history.jsonl").unlink(missing_ok=True)
            for path in [*find_checkpoints(directory), *directory.glob("damaged-*")]:
                _remove(path)
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._open:
            try:
                self._wait()
            except InputError as unwritten:
                if error is None or isinstance(error, KeyboardInterrupt):
                    raise
                logger.error("%s", unwritten)  # and let the first error be told

    def record(self, event: Mapping[str, Any]) -> None:
        """Note a validation; keep the best weights."""
        entry = {**event, "seconds": round(self.seconds, 1)}
        entry.pop("samples", None)
        self.history.append(entry)
        logger.info(
            "step %d of %d: %s",
            event["step"],
            event["steps"],
            ", ".join(f"{k} {v:.4g}" for k, v in event.items() if isinstance(v, float)),
        )
        before, self.best = self.best, best_of(self.history)
        if self.best.get("step") != before.get("step"):
            self._best_weights = plain_tensors(self.network.state_dict())

    def checkpoint(self, step: int, loss_sum: Tensor, losses: int) -> None:
        """Write a checkpoint: the state is copied now, a thread writes it while training goes on.

        Parameters
        ----------
        step, loss_sum, losses
            As the attributes.

        Raises
        ------
        DivergenceError
            If a weight is no longer finite: the last good checkpoint stays the last.
        InputError
            If this one, or the one before it, cannot be written.
        """
        self.step, self.loss_sum, self.losses = step, loss_sum, losses
        if self.directory is None:
            return
        finite = [p.isfinite().all() for p in self.network.parameters()]
        if not all(torch.stack(finite).tolist() if finite else []):
            raise DivergenceError(
                f"weights are no longer finite after step {step}; try a lower learning_rate or "
                f"precision='fp32'. The last good checkpoint is kept"
            )
        self._wait()  # one in flight
        alike = self._of_this_rank()  # in shape, on all ranks
        gathered = {name: self.world.gather(tensor) for name, tensor in alike.items()}
        if not self.world.is_main:
            return
        tensors = plain_tensors(self._tensors()) | over("best.", self._best_weights)
        for name, parts in gathered.items():
            tensors |= {_of_rank(rank) + name: part.clone() for rank, part in enumerate(parts)}
        state = {"library": __version__, "step": step}
        state |= {"losses": losses, "best": self.best, "history": [*self.history]}
        state |= {"seconds": self.seconds, "ranks": self.world.size, "identity": self._identity}
        self._pending = self._writer.submit(self._write, self.directory, state, tensors)

    def stop(self, why: str, step: int) -> None:
        """Note that training ends after `step` steps, before the last one."""
        self.stopped = {"why": why, "step": step, "steps": self._steps}

    @property
    def training(self) -> dict[str, Any]:
        """How the forecaster came to be, for its bundle."""
        stopped = {"stopped": self.stopped} if self.stopped else {}
        return {**self._about, **stopped, "validation": self.best}

    @property
    def stale(self) -> int:
        """Validations since the best one."""
        since = self.best.get("step", math.inf)
        return sum("val_score" in e and e["step"] > since for e in self.history)

    def take_best(self) -> None:
        """Put the best weights into the network; before a validation, the average or the last."""
        if self._best_weights:
            self.network.load_state_dict(self._best_weights)
        else:
            self.average.take()

    @property
    def seconds(self) -> float:
        """Seconds of training, in all calls together."""
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        return self._seconds

    def _wait(self) -> None:
        """Wait for the checkpoint in flight; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = over("network.", self.network.state_dict())
        tensors |= over("normalizer.", self._normalizer.state_dict())
        tensors |= over("optimizer.", self.optimizer.tensors())
        return tensors | over("average.", self.average.tensors)

    def _of_this_rank(self) -> dict[str, Tensor]:
        tensors = {"rng.cpu": torch.get_rng_state(), "loss_sum": self.loss_sum}
        if self.loss_sum.is_cuda:
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.loss_sum.device)
        return tensors

    # --- writing ----------------------------------------------------------------------------------

    def _write(self, directory: Path, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        with self._explained(f"the checkpoint of step {state['step']}"):
            if not self._is_ours():
                raise InputError(
                    f"{directory} was removed or replaced while the run in it went on, so its "
                    f"checkpoint of step {state['step']} has no place: restore the directory and "
                    f"give the same command again, and let nothing else write there"
                )
            with replacing(directory / f"checkpoint-{state['step']:08d}") as new:
                write_checkpoint(new, state, tensors)
            self._write_history(directory, state["history"])

    def _write_history(self, directory: Path, history: list[dict[str, Any]]) -> None:
        """Write what a checkpoint that is there tells; then older ones may go."""
        with replacing(directory / "history.jsonl") as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in history))
        for old in find_checkpoints(directory)[KEPT:]:
            if step_of(old) not in self._keep:
                _remove(old)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Say what could not be written, and what to do."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            assert self.directory is not None
            there = find_checkpoints(self.directory)
            onward = f"goes on from {there[0].name}, which is whole" if there else "starts anew"
            raise InputError(
                f"cannot write {what} in {self.directory} ({error}): see to it that the disk has "
                f"room and the directory can be written, then the same command {onward}"
            ) from error

    # --- going on ---------------------------------------------------------------------------------

    def _latest(self, directory: Path) -> Checkpoint | None:
        """The last checkpoint that is whole; None where there is none at all."""
        damaged: list[str] = []
        network = ""
        paths = find_checkpoints(directory)
        for path in paths:
            try:
                state, tensors = read_checkpoint(path)
            except InputError as error:
                why = str(error)
            else:
                if self._identity.keys() == state["identity"].keys():
                    self._refuse_another(state["identity"])
                network = misfit(under("network.", tensors), forms(self.network.state_dict()))
                why = network or self._misfit(state, tensors)
                why = why and f"{path} does not fit this run ({why})"
            if why:
                logger.warning("%s; taking the one before it", why)
                damaged.append(why)
                continue
            self._refuse_other_values(under("normalizer.", tensors))
            for old in paths[: len(damaged)]:  # or it would outrank, and outlive, new ones
                aside = old.with_name(f"damaged-{old.name}")
                _remove(aside)
                old.rename(aside)
                logger.warning("%s was set aside as %s", old, aside.name)
            logger.info("going on from %s", path)
            return state, tensors
        if network:
            raise self._another("model", [network])
        start_anew = f"or give {_ANEW} (or another directory) to start from the beginning"
        if damaged:
            raise InputError(
                f"no checkpoint in {directory} is whole: {'; '.join(damaged)}. Restore one from a "
                f"copy, {start_anew}"
            )
        history = directory / "history.jsonl"
        if history.exists() and history.stat().st_size:  # it follows the first checkpoint
            raise InputError(
                f"{history} tells of a run, but its checkpoints are gone from {directory}: restore "
                f"the last one, {start_anew}"
            )
        return None

    def _refuse_another(self, saved: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than those of the checkpoint."""
        other = [k for k, value in self._identity.items() if saved[k] != value]
        told = [t for k in other if k in _TOLD for t in differences(saved[k], self._identity[k], k)]
        if other:
            raise self._another(", ".join(other), told)

    def _another(self, what: str, told: list[str]) -> InputError:
        """The error for a directory of another run; `told` says how it differs in `what`."""
        how = f": {'; '.join(told)}" if told else ""
        longer = ""
        if any(text.startswith("steps: ") for text in told):
            longer = (
                ". The learning rate falls over all steps of a run, so it cannot be made longer: "
                "train anew, or start another run from its weights (warm_start=, --warm-start)"
            )
        return InputError(
            f"{self.directory} holds a run with other settings ({what} differ){how}; give another "
            f"directory, or {_ANEW} to start anew there{longer}"
        )

    def _refuse_other_values(self, saved: Mapping[str, Tensor]) -> None:
        """Mean (in standard deviations) and standard deviation: other data of a period differ."""
        std = self._normalizer.std.cpu()
        if not all(
            torch.allclose(value.cpu() / std, saved[name] / std, rtol=1e-3, atol=1e-3)
            for name, value in self._normalizer.state_dict().items()
        ):
            raise self._another("values of the data", [])

    def _misfit(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
        """Say what this run cannot go on from; "" if nothing is wrong."""
        if state["step"] > self._steps:
            return f"it is of step {state['step']} of {self._steps}"
        if lacking := self._identity.keys() ^ state["identity"].keys():
            return f"its identity is without, or alone with, {min(lacking)!r}"
        if state["ranks"] > len(tensors):
            return f"it has no random numbers of {state['ranks']} processes"
        parts = {
            "network.": self.network.state_dict(),
            "normalizer.": self._normalizer.state_dict(),
            "average.": self.average.tensors,
            "best.": self.network.state_dict() if state["best"] else {},
        }
        needed = forms({k: t for name, part in parts.items() for k, t in over(name, part).items()})
        own = forms({"rng.cpu": torch.get_rng_state(), "loss_sum": self.loss_sum})
        for rank in range(state["ranks"]):
            needed |= {_of_rank(rank) + name: form for name, form in own.items()}
            if (cuda := f"{_of_rank(rank)}rng.cuda") in tensors:
                needed[cuda] = (torch.uint8, None)
        moments = {
            f"optimizer.{name}": form
            for name, form in self.optimizer.forms(under("optimizer.", tensors)).items()
        }
        if wrong := misfit(tensors, needed | moments):
            return wrong
        for name, _ in self.network.named_parameters():
            if not tensors[f"network.{name}"].isfinite().all():
                return f"network.{name} is not finite"
        try:
            for rank in range(state["ranks"]):
                torch.Generator().set_state(tensors[f"{_of_rank(rank)}rng.cpu"])
        except RuntimeError as error:
            return str(error)
        counts = [float(tensors[name]) for name in moments if name.endswith(".step")]
        if not moments or not all(n in range(1, state["step"] + 1) for n in counts):
            return f"its optimiser has not taken {state['step']} steps"
        return ""

    def _restore(self, found: Checkpoint | None) -> None:
        """Put a checkpoint into the network, the normaliser, the optimiser and the generators."""
        if found is None:
            return
        state, tensors = found
        self.network.load_state_dict(under("network.", tensors))
        self._normalizer.load_state_dict(under("normalizer.", tensors))
        self.average.load(under("average.", tensors))
        self._best_weights = under("best.", tensors)
        self.optimizer.load(under("optimizer.", tensors))
        self.step, self.best, self.history = state["step"], state["best"], state["history"]
        self.losses, self._seconds = state["losses"], state["seconds"]
        if state["ranks"] != self.world.size:
            logger.warning(
                "the checkpoint is of %d processes, this run of %d: it goes on, but not to the bit",
                state["ranks"], self.world.size,
            )  # fmt: skip
        mine = under(_of_rank(self.world.rank), tensors)
        if "rng.cpu" in mine:
            self.loss_sum = mine["loss_sum"].to(self.loss_sum)
            torch.set_rng_state(mine["rng.cpu"])
        if self.loss_sum.is_cuda and "rng.cuda" in mine:
            torch.cuda.set_rng_state(mine["rng.cuda"], self.loss_sum.device)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _of_rank(rank: int) -> str:
    """What the names of a rank's tensors begin with."""
    return f"rank{rank}." if rank else ""

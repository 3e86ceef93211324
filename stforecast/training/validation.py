"""What the training loop asks of the validation period: one score, exact on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..conventions.grid import Grid, area_weights
from ..conventions.overlap import FINGERPRINT, TRAINED, TRAINED_FINGERPRINT, refuse_overlap
from ..errors import InputError
from ..forecasting.core import check_units
from ..forecasting.draws import Drawn
from ..forecasting.forecaster import Forecaster
from ..loading.base import Feed
from ..loading.source import Source
from ..models.members import Streams, drawing
from .distributed import all_sum
from .losses import crps
from .provenance import period

if TYPE_CHECKING:
    import xarray as xr


class Validation:
    """RMSE on windows of the validation period, and persistence's beside it.

    Of a forecaster that draws members, the RMSE of their mean, and their fair CRPS, which is then
    the score.

    Parameters
    ----------
    ds : xarray.Dataset
        The validation period.
    forecaster : Forecaster
        Its network is scored as it is at each call.
    feed : callable
        Opens a feed on the period's :class:`~stforecast.loading.source.Source`; several ranks
        share its windows.
    device : torch.device
    rollout : int
        Applications of the network that are scored.
    members, seed : int
        How many members are drawn, where there are more than 1: the same ones at each call.
    where : callable, optional
        Tells of truth, in its units, which points count.

    Raises
    ------
    InputError
        If the data lie on another grid than the training data, or are in other units.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        forecaster: Forecaster,
        feed: Callable[[Source], Feed],
        device: torch.device,
        rollout: int = 1,
        members: int = 1,
        seed: int = 0,
        where: Callable[[Any], Any] | None = None,
    ) -> None:
        source = Source(ds, forecaster.task, "validation", rollout)
        trained_on = Grid.from_dict(forecaster.grid or {})
        if difference := trained_on.difference(Grid.of(source.ds)):
            raise InputError(
                f"the training and the validation data lie on different grids: {difference}; put "
                "both on one grid first"
            )
        led = {name: source.ds[parts[0]] for name, parts in source.led.items()}
        check_units({**source.ds.data_vars, **led}, forecaster, "the validation data")
        self.source, self.feed, self.forecaster = source, feed(source), forecaster
        self.period, self.where = period(source.ds), where
        self._drawn = Drawn(range(members), seed) if members > 1 else None
        # One number for all variables: errors in units of each variable's standard deviation.
        self.std = forecaster.normalizer.std[self.feed.targets, None, None]
        rows = np.ones(1)
        if "latitude" in source.ds.coords:
            rows = np.asarray(area_weights(source.ds["latitude"].values))
        self.rows = torch.as_tensor(rows, dtype=torch.float32, device=device)[:, None]

    def __call__(self) -> dict[str, float]:
        """Return area-weighted RMSE over all leads in units of the first output, and a score.

        The score is the RMSE of all outputs in their standard deviations, or of members the CRPS.

        The sums are taken over all windows of all ranks before anything is divided or rooted.
        """
        self.forecaster.network.eval()
        task = self.forecaster.task
        same = set(task.outputs) <= set(task.variables)
        index = [task.variables.index(v) for v in task.outputs] if same else []
        # Weighted sums of squared errors, and of the weights, in float64: of all outputs in their
        # standard deviations, of the first output, and of the first output as persistence has it;
        # of members the CRPS of all outputs and of the first, and the variance of the first.
        sums = torch.zeros(6, 2, dtype=torch.float64, device=self.rows.device)
        with torch.no_grad(), self.feed:
            for step in range(self.feed.steps_per_epoch):
                windows = self.feed.batch(step)
                x, y = windows
                if len(x) == 0:  # fewer windows than ranks
                    continue
                history, wanted, *ahead = self.forecaster.parts(windows, self._usual(windows))
                if self.where is not None:
                    wanted, y = (only_counted(self.where, y, v) for v in (wanted, y))
                forecast = self._forecast(windows, history, wanted.shape[1], *ahead)
                error = forecast.mean(0) - wanted  # in standard deviations
                sums[0] += self._sums(error.square())
                sums[1] += self._sums((error * self.std)[:, :, :1].square())
                if same:
                    sums[2] += self._sums((x[:, -1:, index[:1]] - y[:, :, :1]).square())
                if self._drawn is not None:
                    score = crps(forecast, wanted)
                    variance = (forecast.var(0) * self.std**2 + 0 * wanted)[:, :, :1]
                    sums[3] += self._sums(score)
                    sums[4] += self._sums((score * self.std)[:, :, :1])
                    sums[5] += self._sums(variance)
        all_sum(sums)
        means = sums[:, 0] / sums[:, 1]
        score, model, persistence = means[:3].sqrt().tolist()
        result = {"val_score": score, "val_rmse": model}
        if persistence > 0:  # NaN where it has no forecast
            result["val_to_persistence"] = model / persistence
        if self._drawn is not None:
            M = len(self._drawn.members)
            spread = float(means[5].sqrt()) * (1 + 1 / M) ** 0.5
            result |= {"val_score": float(means[3]), "val_crps": float(means[4])}
            result["val_spread_to_skill"] = spread / model if model > 0 else float("inf")
        return result

    def _forecast(
        self, windows: Any, history: Tensor, steps: int, known: Tensor | None, usual: Tensor | None
    ) -> Tensor:
        """Members (M, B, T', C', H, W); one without random numbers where none are drawn."""
        forecaster, drawn = self.forecaster, self._drawn

        def roll(streams: Streams | None = None) -> Tensor:
            run = partial(forecaster.run, streams=streams)
            return forecaster.roll_normalised(run, history, steps, known=known, usual=usual)

        if drawn is None:
            return roll()[None]
        rows = windows.first + forecaster.task.history - 1
        times, draws = self.source.ds["time"].values[rows], str(forecaster.draws)
        with drawing(forecaster.network, draws):
            return torch.stack(list(map(roll, drawn.streams(draws, times))))

    def _usual(self, windows: Any) -> Tensor | None:
        """What is usual at the steps of windows (B, window, C', H, W)."""
        reference, task = self.forecaster.reference, self.source.task
        if reference is None:
            return None
        rows = windows.first[:, None] + np.arange(task.window)
        return reference.at(self.source.ds["time"].values[rows], task.outputs)

    def refuse_overlap(
        self, trained: Source, starts: np.ndarray, earlier: Mapping[str, str]
    ) -> None:
        """Refuse targets that lie in the training period; the steps before them may.

        Parameters
        ----------
        trained : Source
            The training data.
        starts : numpy.ndarray of int
            First steps of the windows that are trained on.
        earlier : mapping
            What is told of the data behind the weights of a warm start; empty without one.

        Raises
        ------
        InputError
            If there are any. Times of clips are no dates: of clips, only the same ones overlap.
        """
        window, inputs = trained.task.window, trained.task.history
        mark, other = (source.ds.attrs.get(FINGERPRINT) for source in (trained, self.source))
        judge = covered(self.source, self.source.starts + inputs, window - inputs)
        periods: list[tuple[Any, str | None]] = [(covered(trained, starts, window), mark)]
        if TRAINED in earlier:
            periods.append((earlier[TRAINED], earlier.get(TRAINED_FINGERPRINT)))
        for seen, whose in periods:
            refuse_overlap(
                seen,
                judge,
                "the validation period",
                fingerprints=(whose, other),
                invented=trained.invented and self.source.invented,
                remedy="fit(allow_overlap=True)",
            )

    def _sums(self, loss: Tensor) -> Tensor:
        """Sum of weight times loss, and of the weights; NaN is masked, or there is none."""
        masked = self.forecaster.task.nan == "mask" or self.where is not None
        known = ~loss.isnan() if masked else torch.ones_like(loss, dtype=torch.bool)
        return torch.stack(
            [
                (torch.where(known, loss, 0).double() * self.rows).sum(),
                (known * self.rows).sum(dtype=torch.float64),
            ]
        )


def only_counted(where: Callable[[Any], Any], truth: Tensor, y: Tensor) -> Tensor:
    """Targets (B, T', C', H, W), NaN where they do not count.

    Parameters
    ----------
    where : callable
        Of truth; on several applications of a roll-out, truth may be of more than there are in `y`.
    truth : Tensor
        In its units.
    y : Tensor
        Targets, as the network has them.

    Returns
    -------
    Tensor

    Raises
    ------
    InputError
        If `where` gives something else than one truth value a point.
    """
    counts = where(truth[:, : y.shape[1]])
    if not isinstance(counts, Tensor) or counts.dtype != torch.bool or counts.shape != y.shape:
        raise InputError(
            f"TrainConfig.where must give one truth value for each point of the targets "
            f"{tuple(y.shape)}, found {counts!r:.80}"
        )
    return torch.where(counts, y, torch.nan)


def covered(source: Source, starts: np.ndarray, length: int) -> np.ndarray:
    """The times of `length` steps from each start on."""
    edges = np.zeros(source.shape[0] + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + length, -1)
    return source.ds["time"].values[edges.cumsum()[:-1] > 0]

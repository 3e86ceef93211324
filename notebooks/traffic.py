# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Traffic: what differs from the usual week
#
# Taxis in New York, early 2016: how many enter (`inflow`) and leave (`outflow`) each cell of a
# grid, every half hour. Two hours go in, the next two come out: the kind of data, and of picture,
# of the SimVPv2 paper's traffic benchmark (TaxiBJ, Figure 9), though of another city.
#
# *The text is about these data, which are not part of the package. Without them the notebook runs
# on synthetic files in the same format, with other numbers.*

# %%
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import stforecast
from stforecast import plots, testing
from stforecast.baselines import LinearRegression, WeeklyClimatology
from stforecast.datasets import open_nyc_flow, split, with_history
from stforecast.evaluation import scorecard
from stforecast.task import initialisations

path = Path("../../shared/data/nyc_flow/NYTaxi")
if not path.exists():
    path = testing.write_nyc_flow(Path("flow"), days=(35, 7, 14))
ds = open_nyc_flow(path).compute()
ds

# %% [markdown]
# Rows and columns stay rows and columns, so that all cells count the same; `cell_latitude` and
# `cell_longitude` say where they lie, and the table of days is there as variables.
# The owners' three parts are kept; the validation weeks are left alone, as nothing is chosen here.
#
# ## The usual week
#
# Cities have habits. The median of the training weeks at the same time of the week is a baseline
# that is hard to beat (a mean would carry the blizzard of 23 January in it), and what the network
# is asked for is only *what differs* from it: `reference="weekly"`. It also sees the usual week at
# the hours that it forecasts, and the same hours of the last three days (`lags`); and it is told
# that a count cannot be negative.
#
# The strongest simple rival gets the same: a linear regression for each cell, on differences from
# the usual week, with the cell's neighbours and the same lags.

# %%
plain = stforecast.Task(("inflow", "outflow"), input_steps=4, target_steps=4, timestep="30min")
task = replace(plain, reference="weekly", known="reference", lags=("1D", "2D", "3D"), lower=0)
parts = split(ds, **{part: ds.attrs[f"{part}_period"] for part in ("train", "test")})
train = parts["train"]
test = with_history(parts["test"], ds, task)  # with the three days before it, to look back to

usual = WeeklyClimatology.fit(train, plain, statistic="median")
floor = LinearRegression.fit(train, replace(plain, lags=task.lags, lower=0), ridge=0.05)
network = partial(
    stforecast.SimVPv2.for_task,
    task,
    encoder_channels=16,
    translator_channels=64,
    translator_blocks=4,
    mlp_ratio=2.0,
    predict_change=True,
)
config = stforecast.TrainConfig(steps=300, learning_rate=3e-3, loss="mae")
model = stforecast.fit(train, task, model=network, config=config, progress=False)

# %% [markdown]
# ## Score
#
# All initialisations of the last two and a half weeks, in taxis per half hour. Persistence repeats
# the last half hour ("copying", in the paper).

# %%
init_time = initialisations(parts["test"], plain)
models = {"SimVPv2": model, "LinearRegression": floor, "usual week": usual}
models["Persistence"] = stforecast.Persistence(plain)
forecasts = {n: stforecast.predict(test, m, init_time=init_time) for n, m in models.items()}
card = scorecard(
    {n: stforecast.evaluate(f, test) for n, f in forecasts.items()},
    references=["Persistence", "LinearRegression"],
)
plots.scorecard(card, variable="outflow")

# %%
plots.lead_curve(card, variable="outflow")

# %% [markdown]
# Persistence loses by the half hour; the usual week does not care how far ahead it looks. What the
# last two hours add to it is worth most for the next half hour, and less and less after that: the
# network's advantage over the usual week, small after two hours, is all that it has learned.
#
# ## When it fails
#
# The same score by day:

# %%
mse = pd.DataFrame(
    {
        name: stforecast.evaluate(forecast, test, metrics="mse", by=("time",))["outflow"]
        .sel(metric="mse")
        .to_series()
        for name, forecast in forecasts.items()
    }
)
daily = mse.groupby(mse.index.normalize()).mean() ** 0.5
daily.index = daily.index.strftime("%a %d %b")
daily.round(1).T

# %% [markdown]
# On one day the network is far worse than the usual week. What was that? The whole city, that
# morning:

# %%
worst = mse["SimVPv2"].idxmax()
expected = forecasts["SimVPv2"]["outflow"].sel(time=worst).sum(("y", "x")).values
print(f"Worst forecast of the network, from {worst:%a %d %b %H:%M}, of taxis in the city:")
print(*(f"{number:.0f}" for number in expected))
worst = worst.normalize()
morning = test["outflow"].sel(time=slice(worst, worst + pd.Timedelta("5h30min")))
habit = usual.at(morning["time"])["outflow"]
together = pd.DataFrame(
    {
        "taxis leaving": morning.sum(("y", "x")).to_series(),
        "usual week": habit.sum(("y", "x")).values.round(),
    }
).astype(int)
together.index = together.index.strftime("%a %d %b %H:%M")
together.T

# %% [markdown]
# On 13 March 2016 the clocks went forward: local time has no hour from two to three, and the data
# have next to nothing there. The network goes by the last two hours. It takes an hour that never
# was for a city that empties, and expects next to no taxis; without `lower=0` it would expect fewer
# than none. The usual week does not look at the last hours. So the network's worst failure is one
# of the input, not of the traffic, and time in UTC would have spared it. It also weighs on the
# score of all days together.
#
# Without the initialisations of that day:

# %%
rest = mse[mse.index.normalize() != worst].mean() ** 0.5
rest.round(2).to_frame("RMSE of outflow").T

# %% [markdown]
# ## Difference maps
#
# Where the two differ most in the network's favour: truth, forecasts, and how far each is off, as
# in the paper's Figure 9.

# %%
gain = mse["usual week"] - mse["SimVPv2"]
at = gain[gain.index.normalize() != worst].idxmax()
made = {n: forecasts[n]["outflow"].sel(time=at) for n in ("SimVPv2", "usual week")}
truth = test["outflow"].sel(time=made["SimVPv2"]["valid_time"].values)
rows = {"truth": truth.values}
rows |= {name: field.values for name, field in made.items()}
rows |= {f"|{name} − truth|": abs(field.values - truth.values) for name, field in made.items()}
top, off = (max(r.max() for r in list(rows.values())[part]) for part in (slice(3), slice(3, 5)))

figure, axes = plt.subplots(5, 4, figsize=(6.4, 9.6), layout="constrained")
for (name, fields), line in zip(rows.items(), axes, strict=True):
    is_difference = name.startswith("|")
    for step, (ax, field) in enumerate(zip(line, fields, strict=True)):
        limits = {"vmin": 0, "vmax": off if is_difference else top}
        image = ax.imshow(field, cmap="YlOrRd" if is_difference else "viridis", **limits)
        ax.set(xticks=[], yticks=[])
        if name == "truth":
            ax.set_title(f"+{30 * (step + 1)} min", fontsize=9)
    line[0].set_ylabel(name, fontsize=9)
    if name in ("SimVPv2", "|usual week − truth|"):
        figure.colorbar(image, ax=axes[3:] if is_difference else axes[:3], shrink=0.6)
figure.suptitle(f"Taxis leaving per half hour, forecast at {at:%a %d %b %H:%M}", fontsize=10)
plt.show()

# %% [markdown]
# It is the morning of Good Friday, and the rush of a working Friday does not come. The usual week
# expects it; the network has seen two quiet hours, and expects much less. It knows nothing of
# holidays: two months of training hold too few to learn them from.

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
# # How sure?
#
# A forecast says 3 °C. Whether to salt the road depends on how likely it is that it will be below
# zero. The network in the package has learned to draw *members*: forecasts that are equally likely,
# as far as it knows. Can one believe them?
#
# *The weather is simulated by a general circulation model (PlaSim): these are results about a
# model's weather, not about the Earth's.*

# %%
import numpy as np
import pandas as pd

import stforecast
from stforecast import plots
from stforecast.baselines import Persistence
from stforecast.datasets import select_period
from stforecast.evaluation import brier, reliability
from stforecast.task import initialisations

ds = stforecast.open_sample()
test = select_period(ds, ds.attrs["test_period"]).compute()
task = stforecast.Task("2m_temperature", input_steps=12, target_steps=12, timestep="1h")
longer = stforecast.Task("2m_temperature", input_steps=17, target_steps=12, timestep="1h")
init_time = initialisations(test, longer, 18)  # the five hours more are for a comparison below
members = stforecast.predict(test, init_time=init_time, ensemble=20, seed=0)
dict(members.sizes)

# %% [markdown]
# Twenty members of every forecast, from every eighteenth hour of the four test weeks. A member
# follows from the seed, its number and the time of its start: the same call gives the same members.
#
# ## One forecast
#
# Three places, one start. The bands hold half and nine tenths of the members; the line is the
# truth.

# %%
places = {"Central Europe": (47, 11), "Siberia": (64, 112), "Tropical Pacific": (3, 200)}
start = init_time[2]
plots.plume(members, test, place=places, init_time=start)

# %% [markdown]
# How wide they are depends on the place and on what the weather is about to do. Over the globe,
# twelve hours ahead: the truth minus the members' mean, beside some members minus it. Whoever
# cannot tell which one is the truth has a good ensemble.

# %%
plots.member_stamps(members, test, init_time=start, lead="12h", most=5)

# %% [markdown]
# And what the road service asked: the probability of less than 0 °C, with a line around where it
# was so.

# %%
plots.probability_map(members, 273.15, test, below=True, init_time=start, lead="12h")

# %% [markdown]
# ## Are the members as far apart as they are wrong?
#
# The truth should be one more draw. Then the spread equals the error of the mean, and counted over
# many forecasts the truth is as often the coldest as the warmest, or any in between.

# %%
frost = 273.15
metrics = ("rmse", "mae", "crps_fair", "spread_skill", "rank_histogram", brier(frost))
scores = stforecast.evaluate(members, test, metrics=(*metrics, reliability(frost)))
plots.spread_skill(scores)

# %%
plots.rank_histogram(scores, leads=["1h", "6h", "12h"])

# %% [markdown]
# In both pictures the grey band is what a forecaster would call good. A histogram like a bowl says
# that the members are too much alike: the truth lies outside them too often; one like a hill, that
# they differ too much. One that leans says that they are too warm or too cold. These members are as
# far apart as they are wrong, but for the first hour, whose errors are a few hundredths of a
# degree: there they are a twentieth too close. The truth is not quite often enough beyond the
# coldest and the warmest.
#
# ## Does a probability of 30% come true three times in ten?

# %%
plots.reliability_diagram(scores)

# %% [markdown]
# ## Is it worth it?
#
# The CRPS is the absolute error of a forecast that may say how sure it is, in K: of a single
# forecast it is its mean absolute error. So ensembles and single forecasts stand in one table. The
# *lagged* ensemble costs nothing: the newest forecast and those that were made one to five hours
# before, for the same hours.

# %%
single = stforecast.predict(test, init_time=init_time)
long = stforecast.predict(
    test, init_time=init_time, ensemble="lagged", members=6, lag="1h", steps=17
)
rivals = {
    "20 members": scores,
    "lagged": stforecast.evaluate(long, test, metrics=("crps_fair",)),
    "one forecast": stforecast.evaluate(single, test, metrics=("mae",)),
    "persistence": stforecast.evaluate(
        stforecast.predict(test, Persistence(task), init_time=init_time), test, metrics=("mae",)
    ),
}
table = {
    name: s["2m_temperature"]
    .sel(metric="crps_fair" if "crps_fair" in s["metric"] else "mae")
    .to_series()
    for name, s in rivals.items()
}
table = pd.DataFrame(table)
table.index = (table.index / pd.Timedelta("1h")).astype(int).rename("lead [h]")
table.loc[[1, 3, 6, 9, 12]].round(3)

# %% [markdown]
# The members take off what a single forecast loses by saying nothing of its doubts. A part of that
# is the mean of the members, which errs less than each; the rest is knowing where the error will
# be. How well it knows, twelve hours ahead: places and times sorted by the spread of their members,
# into ten equal groups, and the error of the mean in each.

# %%
last = members["2m_temperature"].sel(prediction_timedelta="12h")
truth = test["2m_temperature"].sel(time=last["valid_time"].values).values
area = stforecast.conventions.grid.area_weights(test["latitude"])[:, None]
weight = np.broadcast_to(area, truth.shape).ravel()
spread = (last.var("realization", ddof=1) * 21 / 20).values.ravel()
square = ((last.mean("realization").values - truth) ** 2).ravel()
group = pd.qcut(spread, 10, labels=False)
rows = [
    {
        "spread [K]": np.average(spread[group == g], weights=weight[group == g]) ** 0.5,
        "error [K]": np.average(square[group == g], weights=weight[group == g]) ** 0.5,
    }
    for g in range(10)
]
pd.DataFrame(rows, index=pd.Index(range(1, 11), name="tenth")).T.round(2)

# %% [markdown]
# ## For a network of your own
#
# `fit(ds, task, ensemble="crps")` trains a network and then teaches it to draw, which takes a small
# part of the time. The bundle says how it draws, and `predict(ds, ensemble=20, seed=0)` does it.
# The how-to on ensembles has this and the other ways: several networks, dropout,
# the years of the past.
#
# What these members do not know: errors in the history that they start from, and years unlike those
# that the network has seen. Of a simulated planet that is enough; of the Earth, look at the
# histogram first.

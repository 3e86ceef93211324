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
# # Verification: how good, how sure, where and when not
#
# The network in the package has a small error. Compared with what? Is the difference more than
# chance? Where does it fail, and when? The four test weeks of the sample (January, April, July and
# October of a year that had no part in its training) answer, as far as four weeks can.
#
# *The weather is simulated by a general circulation model (PlaSim): these are results about a
# model's weather, not about the Earth's.*

# %%
import numpy as np
import pandas as pd

import stforecast
from stforecast import plots
from stforecast.baselines import LinearRegression
from stforecast.datasets import select_period
from stforecast.evaluation import compare, scorecard
from stforecast.task import initialisations

ds = stforecast.open_sample()
train = select_period(ds, ds.attrs["train_period"]).compute()
test = select_period(ds, ds.attrs["test_period"]).compute()
task = stforecast.Task("2m_temperature", input_steps=12, target_steps=12, timestep="1h")
init_time = initialisations(test, task, 3)
len(init_time)

# %% [markdown]
# ## Against what
#
# Three baselines, from the easiest to beat to the hardest:
#
# - *climatology*, the usual temperature of the day of the year and the hour (of the one training
#   year that the sample has, so a poor one),
# - *persistence*, the last temperature,
# - a *linear regression* for each point and lead, on the point's last twelve hours and its
#   neighbours' last two, as anomalies from the climatology of the sample's training year, with the
#   sun. It knows the calendar and what flows in from next door; what it cannot learn takes a
#   network. (The network had five years.)

# %%
climatology = stforecast.Climatology.fit(train, task)
models = {
    "SimVPv2": None,  # the bundle in the package
    "Persistence": stforecast.Persistence(task),
    "Climatology": climatology,
    "LinearRegression": LinearRegression.fit(train, task, windows=500),
}
forecasts = {n: stforecast.predict(test, m, init_time=init_time) for n, m in models.items()}
by_time = {
    name: stforecast.evaluate(
        forecast, test, by=("time", "prediction_timedelta"), climatology=climatology
    )
    for name, forecast in forecasts.items()
}
card = scorecard(
    {n: stforecast.evaluate(f, test, climatology=climatology) for n, f in forecasts.items()},
    by_time=by_time,
)
plots.scorecard(card)

# %% [markdown]
# Against persistence the skill is about three quarters at every lead. Against the regression, the
# reference that matters, it is smaller: much of what happens in a few hours is linear.
#
# ## Do the patterns agree?
#
# RMSE asks how far off; the anomaly correlation (ACC) asks whether what is warmer or colder than
# usual is so in the same places. It is 1 for a perfect forecast, and climatology has none.

# %%
plots.lead_curve(card.sel(model=["SimVPv2", "Persistence", "LinearRegression"]), metric="acc")

# %% [markdown]
# Network and regression stay above 0.9, for what is unusual mostly lasts longer than twelve hours,
# and the scale ends at 1: ACC tells the two apart much less than RMSE does. It tells persistence
# from both.
#
# ## Is it chance?
#
# Forecasts that start three hours apart err alike, so they are not so many independent cases as
# they look. `compare` measures how long the differences remember, and widens its intervals by it.

# %%
references = ("LinearRegression", "Persistence", "Climatology")
found = {r: compare(by_time["SimVPv2"], by_time[r])["2m_temperature_overall"] for r in references}
pd.DataFrame({f"SimVPv2 − {r}": a.to_series() for r, a in found.items()}).T.round(4)

# %% [markdown]
# No interval comes near 0 (`difference` in K, `low` and `high` its 95% interval). But it knows only
# the four weeks that it was made from, which it takes as one series: it says nothing of other
# years, other seasons or other planets.
#
# ## Where
#
# The same score by region, and a map of it.

# %%
regions = ("global", "tropics", "northern-hemisphere", "southern-hemisphere", "arctic", "antarctic")
regions += ("europe", "north-america", "north-atlantic")
table = pd.DataFrame(
    {
        name: stforecast.evaluate(forecast, test, regions=regions)["2m_temperature_overall"]
        .sel(metric="rmse")
        .to_series()
        for name, forecast in forecasts.items()
    }
)
table["skill vs Persistence"] = 1 - table["SimVPv2"] / table["Persistence"]
table["skill vs LinearRegression"] = 1 - table["SimVPv2"] / table["LinearRegression"]
table.round(2)

# %%
plots.error_map(forecasts["SimVPv2"], test, lead="12h")

# %% [markdown]
# Error and skill tell different stories. Of these regions North America has the largest error, and
# nearly the highest skill: much happens there, and the network foresees most of it. The tropics
# have the smallest error and as much skill. Over the North Atlantic and near the poles the skill
# over persistence is lowest, and persistence does better there than on average. Against the
# regression, the skill is positive everywhere.
#
# How uneven is it? The share of the squared error, by area, from the worst tenth of the cells:

# %%
square = stforecast.evaluate(
    forecasts["SimVPv2"], test, metrics="mse", by=("latitude", "longitude")
)["2m_temperature"].sel(metric="mse", drop=True)
area = stforecast.conventions.grid.area_weights(square["latitude"])[:, None]
part = (square.values * area / (square.values * area).sum()).ravel()
float(np.sort(part)[::-1][: part.size // 10].sum().round(2))

# %% [markdown]
# ### Bias
#
# Averaged over the globe the forecasts are too cold by less than 0.01 K. In single places it is
# more:

# %%
plots.error_map(forecasts["SimVPv2"], test, metric="bias", lead="12h")

# %% [markdown]
# Over Asia and North America warm and cold patches alternate. Four weeks hold few weather systems,
# so part of this pattern is chance; a longer test would tell which part.
#
# ## When
#
# By week, and by the hour at which forecasts start (UTC), all leads together:

# %%
mse = pd.DataFrame(
    {
        name: stforecast.evaluate(forecasts[name], test, metrics="mse", by=("time",))[
            "2m_temperature"
        ]
        .sel(metric="mse")
        .to_series()
        for name in ("SimVPv2", "Persistence", "LinearRegression")
    }
)
by_week = mse.groupby(mse.index.strftime("%B")).mean() ** 0.5
by_week["SimVPv2 / Persistence"] = by_week["SimVPv2"] / by_week["Persistence"]
by_week.loc[["January", "April", "July", "October"]].round(3)

# %%
by_hour = mse.groupby(mse.index.hour).mean() ** 0.5
by_hour.rename_axis("hour").T.round(3)

# %% [markdown]
# April is the hardest week for the network, although persistence does worse in July: what July
# changes is the regular cycle of the day, which the network has learned. The hour of the start
# matters less.
#
# ### When much changes
#
# A forecast is wanted most where the weather is about to change. Points and times of the twelfth
# hour, sorted into five equal groups by how far the truth went in these twelve hours:

# %%
last = forecasts["SimVPv2"]["2m_temperature"].isel(prediction_timedelta=-1)
truth = test["2m_temperature"].sel(time=last["valid_time"].values).values
start = test["2m_temperature"].sel(time=last["time"].values).values
weight = np.broadcast_to(area, truth.shape).ravel()
change, error = (truth - start).ravel(), (last.values - truth).ravel()
group = pd.qcut(np.abs(change), 5, labels=False)
rows = [
    {
        "|change| up to [K]": np.abs(change[group == g]).max(),
        "RMSE [K]": np.average(error[group == g] ** 2, weights=weight[group == g]) ** 0.5,
        "persistence": np.average(change[group == g] ** 2, weights=weight[group == g]) ** 0.5,
        "share of squared error": (error**2 * weight)[group == g].sum() / (error**2 * weight).sum(),
    }
    for g in range(5)
]
pd.DataFrame(rows, index=pd.Index(range(1, 6), name="fifth")).round(2)

# %% [markdown]
# The fifth of the cases in which most changes holds two fifths of the squared error: this network
# fails most where it matters most, though there its error is still a fifth of the change. In the
# calmest fifth persistence has the smaller error, as it must: those are the cases in which nothing
# changed, which nobody knew beforehand. That is the catch in any table sorted by what came to pass
# (the forecaster's dilemma): it describes one model's errors, and must not be used to choose
# between two. Whoever always cries change does well in the last row.
#
# ## In sum
#
# On these four weeks of simulated weather the network has nearly 30% less error than a linear
# regression and a quarter of persistence's, by far more than chance, and the smaller error than
# either in every region and every week. Its errors sit over the continents of the north and over
# Antarctica, and where the most changes. What this cannot tell: other seasons and years, and the
# real atmosphere.

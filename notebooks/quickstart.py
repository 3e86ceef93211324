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
# # Quickstart: from labelled data to a scored forecast
#
# Twelve hours of temperature go in, the next twelve come out, with the labels they came with. All
# that this notebook needs is in the package: a sample of data, and a network trained on other years
# of the same kind.
#
# **The weather here is simulated** by a general circulation model (PlaSim). Its dates label model
# years, and nothing below says how well anything would do on the Earth.

# %%
import stforecast
from stforecast import plots
from stforecast.datasets import select_period
from stforecast.evaluation import scorecard
from stforecast.task import initialisations

ds = stforecast.open_sample()
ds

# %% [markdown]
# An ordinary `xarray.Dataset`, read lazily: one year of hourly fields, and later weeks, some for
# choosing a model (`validation_period`) and some for judging it (`test_period`).
#
# ## Predict
#
# `predict` takes the twelve hours up to `init_time`. Had the data been called `t2m`, in degrees
# Celsius, with the north first, the forecast would be too.

# %%
forecast = stforecast.predict(ds, init_time="2018-07-18T00")
forecast

# %% [markdown]
# `time` is when a forecast starts, `prediction_timedelta` how far it looks ahead, and `valid_time`
# their sum. Data of dask went in, so nothing has been computed yet; drawing does that.
#
# ## Map
#
# The last hour of the forecast, and then forecast, truth and their difference side by side. Truth
# is taken at the valid times.

# %%
stforecast.plot_map(forecast["2m_temperature"].isel(time=0, prediction_timedelta=-1))

# %%
plots.forecast_panel(forecast, ds, leads=["1h", "6h", "12h"])

# %% [markdown]
# It cools over North America, where night falls, and warms over Africa and Asia, where the day
# comes; the network has both. What it gets wrong grows with the lead time, and is largest over
# land, where temperature changes most.
#
# ## Score
#
# One forecast proves little. Here are forecasts from every fourth hour of the four test weeks,
# which the network was neither trained nor chosen on; beside it stands *persistence*, which says
# that nothing will change. A forecast that does not beat it is of no use.

# %%
test = select_period(ds, ds.attrs["test_period"]).compute()
task = stforecast.Task("2m_temperature", input_steps=12, target_steps=12, timestep="1h")
init_time = initialisations(test, task, 4)
forecasts = {
    "SimVPv2": stforecast.predict(test, init_time=init_time),
    "Persistence": stforecast.Persistence(task).predict(test, init_time=init_time),
}
card = scorecard({name: stforecast.evaluate(f, test) for name, f in forecasts.items()})
plots.scorecard(card)

# %% [markdown]
# Errors are weighted by the area of the cells, and the root is taken last, over all forecasts
# together. The network's error is about a quarter of persistence's at every lead. In numbers:

# %%
card["2m_temperature_overall"].sel(metric=["rmse", "mae", "bias"]).to_pandas().round(3)

# %% [markdown]
# ## Further than it was trained for
#
# With `steps=` the forecast goes on from its own output. It never saw itself in training, so this
# is a test of its own: does the error grow smoothly past the twelfth hour?

# %%
start = [f"2018-07-{day}T{hour:02}" for day in (16, 17, 18, 19) for hour in range(0, 24, 3)]
models = {"SimVPv2": None, "Persistence": stforecast.Persistence(task)}
longer = {n: stforecast.predict(test, m, init_time=start, steps=48) for n, m in models.items()}
plots.lead_curve(scorecard({n: stforecast.evaluate(f, test) for n, f in longer.items()}))

# %% [markdown]
# It does, without a jump where the next twelve hours begin. The error of persistence falls back
# towards one and two whole days, when the sun is where it was: much of what changes here is the
# cycle of the day. The network has the smaller error throughout, but the longer the lead, the
# smaller its advantage: about a quarter of the error of persistence after twelve hours, two thirds
# after two days.
#
# **Next:** [your own data](your_own_data.ipynb), or where and when this network fails:
# [verification](verification.ipynb).

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
# # Your own data: from a file to a model and its score
#
# The network in the package knows one variable on one grid. For anything else, train one of your
# own: here for six-hourly air temperature over North America from the NCEP/NCAR reanalysis,
# regional, north first, 25 × 53 points. Two cores and a minute are enough to see whether it is
# worth more.
#
# *The text is about these data, which are not part of the package. Without them the notebook runs
# on synthetic files in the same format, with other numbers.*

# %%
from functools import partial
from pathlib import Path

import pandas as pd

import stforecast
from stforecast import plots, testing
from stforecast.baselines import LinearRegression
from stforecast.datasets import describe, open_ncep
from stforecast.evaluation import compare, scorecard
from stforecast.task import initialisations

path = Path("../../shared/data/ncep_air_temperature/air_temperature.zarr")
if not path.exists():
    path = testing.write_ncep("ncep", steps=2920, shape=(13, 24))

# %% [markdown]
# ## Look before you open
#
# What is it, and what opens it?

# %%
print(describe(path))

# %%
ds = open_ncep(path).compute()
ds

# %% [markdown]
# Names, order and units are now those that the library works in: `latitude` from the south,
# `longitude` from 0 to 360, kelvin. (You need not do this yourself; `fit` and `predict` pass
# everything through the same gate.)
#
# ## Split by time, then train
#
# The first half is for training, the second for the test: never both at once, and never shuffled,
# for neighbouring hours are nearly copies of each other. A day goes in, the next day comes out.
#
# The network forecasts *anomalies*, differences from the seasons and days of the training year
# (`reference`), and it sees the sun and what is usual at the hours that it forecasts (`known`).
# What goes in and comes out are temperatures all the same.
#
# `network` makes a network when `fit` asks for it, so that its initial weights follow from the
# seed. The paper's network has 12.8 million parameters and needs a GPU. This one is small; it
# forecasts the change from the last input (`predict_change`), and its errors count by area, and at
# each lead in proportion to what is usual there.

# %%
task = stforecast.Task(
    "air",
    input_steps=4,
    target_steps=4,
    timestep="6h",
    reference="climatology",
    known=("reference", "toa_incident_solar_radiation"),
)
half = ds.sizes["time"] // 2
train, test = ds.isel(time=slice(half)), ds.isel(time=slice(half, None))
network = partial(
    stforecast.SimVPv2.for_task,
    task,
    encoder_channels=16,
    translator_channels=64,
    translator_blocks=4,
    mlp_ratio=2.0,
    predict_change=True,
)
config = stforecast.TrainConfig(
    steps=240, learning_rate=3e-3, area_weighted=True, balance_leads=True
)
model = stforecast.fit(train, task, model=network, config=config, progress=False)
print(f"{sum(p.numel() for p in model.network.parameters()):,} parameters, {config.steps} steps")

# %% [markdown]
# ## Score
#
# Beside it stand persistence and a linear regression of each point on its own last day and its
# neighbours' last two fields, with the same climatology and the sun. The regression is solved in
# closed form in seconds; a network that cannot beat it has learned nothing worth its trouble.

# %%
init_time = initialisations(test, task, 3)  # every 18 hours: all times of day in turn
models = {
    "SimVPv2": model,
    "Persistence": stforecast.Persistence(task),
    "LinearRegression": LinearRegression.fit(train, task),
}
forecasts = {n: m.predict(test, init_time=init_time) for n, m in models.items()}
card = scorecard({n: stforecast.evaluate(f, test) for n, f in forecasts.items()})
plots.scorecard(card)

# %% [markdown]
# Persistence is worst after twelve hours, where the afternoon is taken for the night, and recovers
# towards a full day. Both others know the time of day, and the season.
#
# The network and the regression are not far apart at six hours. Is the difference more than chance?

# %%
by = ("time", "prediction_timedelta")
by_time = {n: stforecast.evaluate(f, test, by=by) for n, f in forecasts.items()}
difference = compare(by_time["SimVPv2"], by_time["LinearRegression"])["air"].to_pandas().T
difference.index = [f"{lead / pd.Timedelta('1h'):.0f} h" for lead in difference.index]
difference.round(4)

# %% [markdown]
# Where `low` and `high`, the ends of the 95% interval, are both below 0, the network is better by
# more than chance: at all four leads, by 4% at six hours and by 10% and more from 18 hours on. The
# chance in training is not in this interval: other initial weights (`TrainConfig(seed=1)`) make a
# somewhat different network. More steps are the first thing to try; `fit(validation=...)` then
# keeps the best weights, chosen on a period of its own.
#
# ## Look at it
#
# The last forecast of the test, by lead:

# %%
plots.forecast_panel(forecasts["SimVPv2"], test, leads=["6h", "12h", "24h"])

# %% [markdown]
# And a day ahead, over the whole test: where are the errors?

# %%
plots.error_map(forecasts["SimVPv2"], test, lead="24h")

# %% [markdown]
# Over most of the ocean, whose temperature hardly changes in a day, there is little to get wrong.
# Errors are largest over the interior of the continent, along the lee of the Rocky Mountains and
# over the north: where cold air comes and goes.
#
# ## Save, and use it on data as they come
#
# A bundle is a directory of weights (safetensors) and a description (JSON), with the task, the
# grid, the units and the training period. What it is then given may be in another form: here north
# first, in degrees Celsius and with short names, and so is the forecast.

# %%
model.save("my-model")
again = stforecast.load("my-model")
theirs = test.rename(latitude="lat", longitude="lon").isel(lat=slice(None, None, -1))
theirs["air"] = (theirs["air"] - 273.15).assign_attrs(units="degC")
forecast = again.predict(theirs)
forecast["air"].isel(prediction_timedelta=-1)

# %% [markdown]
# Is it the same forecast? Largest difference from the one of the model in memory, in kelvin:

# %%
same = model.predict(test)["air"].rename(latitude="lat", longitude="lon")
print(f"{float(abs(forecast['air'] + 273.15 - same).max()):.0e}")

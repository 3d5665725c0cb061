# ruff: noqa: T201 - prints what a notebook would show below its cells
"""A run as DataFrames, and a number of its report worked out by hand.

Each `# %%` begins a cell in VS Code, Spyder, PyCharm and, with jupytext, Jupyter. As a script, in the folder
that holds `experiments/`: `python examples/notebook.py [RID]`; without a name it takes the latest run.
"""

# %% the run, its questions, and one row per request
import sys

from scipy.stats import t

from pipeline import load_run

run = load_run(*sys.argv[1:2])
trial = run.trials[min(run.trials)]
print(f"{run.config['name']} ({run.rid}): {len(run.items)} questions, {len(trial.predictions)} requests")
print(trial.predictions.groupby(["condition", "temp", "status"]).size().unstack(fill_value=0), end="\n\n")

# %% one row per question, temperature and condition: means over its samples, NaN where a metric does not apply
shown = ["em", "f1", "abstain_rate", "false_answer_rate"]
print(trial.scores.groupby(["type", "temp", "condition"])[shown].mean().round(3), end="\n\n")

# %% treatment minus control, question by question: which questions did it hurt?
deltas = trial.deltas[trial.deltas.treatment == trial.significance["treatment"]]
questions = run.items[["dataset", "item_id", "type", "question"]]
worst = deltas.merge(questions, on=["dataset", "item_id", "type"]).sort_values("em", kind="stable").head(6)
print(worst[["type", "temp", "em", "question"]].to_string(index=False), end="\n\n")

# %% a number of the report by hand: the mean difference in exact match, and its interval
kind, temp = trial.scores.type.max(), trial.scores.temp.min()
em = deltas[(deltas.type == kind) & (deltas.temp == temp)].dropna(subset="em")
clusters = trial.scores.drop_duplicates(["dataset", "item_id"])[["dataset", "item_id", "cluster"]]
em = em.merge(clusters, on=["dataset", "item_id"])
# Questions on one passage are not independent: their residuals are summed first (CR1; docs/statistics.md).
sums = (em.em - em.em.mean()).groupby([em.dataset, em.cluster]).sum()
n, g = len(em), len(sums)
reach = t.ppf(0.975, g - 1) * (g / (g - 1) * (sums**2).sum()) ** 0.5 / n
by_hand = (em.em.mean(), em.em.mean() - reach, em.em.mean() + reach)
print(f"{kind}-book questions at temperature {temp:g}: {n} questions, {g} passages or subjects")
print("by hand    {:+.4f}, 95% CI {:+.4f} to {:+.4f}".format(*by_hand))

# %% the same from significance.json, where the report takes it
found = trial.significance["results"][format(temp, "g")][kind]["metrics"]["em"]
in_report = (found["delta_mean"], *found["cluster"]["ci_95"])
print("in report  {:+.4f}, 95% CI {:+.4f} to {:+.4f}".format(*in_report))
assert max(abs(one - other) for one, other in zip(by_hand, in_report, strict=True)) < 1e-9

"""The last words of a run: verdict, missing answers and cost, from the files that the reports were made of."""

from types import SimpleNamespace

from report_kit import Failure, better, make

from pipeline.ending import ending


def came_to(made, slugs=None):
    work = SimpleNamespace(trial_paths=lambda _slug: made.paths, config=made.config.values)
    return ending(work, slugs or [made.trial.slug])


def test_verdict_missing_answers_and_cost_are_told_by_place(tmp_path):
    def answer(request, row):
        return Failure("over capacity") if request.item_id == "c001" else better(request, row)

    found = came_to(make(tmp_path, answer, temperatures=(0, 0.7)))
    lines = list(found.lines())
    assert lines[0][0].endswith(": right answers with treatment instead of control, in points")
    assert [line.split("  ")[1] for line, _ in lines[1:5]] == [
        f"{kind}-book, temperature {temp}" for kind in ("Open", "Closed") for temp in ("0", "0.7")
    ]
    assert all(tone in ("good", "bad", "open") for _, tone in lines)
    assert [line for line, _ in lines[5:]] == ["missing: 4 of 96 answers", "cost: not known, since a price is not"]
    assert all(line.isascii() for line, _ in lines)
    assert (found.as_json()["missing"], len(found.as_json()["verdicts"])) == (4, 4)


def test_of_many_trials_each_has_one_line_best_first(tmp_path):
    made = make(tmp_path, treatments=("a", "b"), temperatures=(0, 0.5))
    lines = [line for line, _ in came_to(made, [f"m-{number}" for number in range(7)]).lines()]
    assert lines[0].endswith("best first")
    assert [line.split()[:2] for line in lines[1:4]] == [["m-0", "a"], ["m-0", "b"], ["m-1", "a"]]
    assert "better" in lines[1]
    assert lines[11] == "  and 4 more"


def test_the_earlier_tools_results_have_no_verdict_here(tmp_path):
    made = make(tmp_path)
    made.paths.significance.write_text('{"0.0": {"mcnemar": {"b": 1, "c": 0}}}')
    assert came_to(made).asked == 0

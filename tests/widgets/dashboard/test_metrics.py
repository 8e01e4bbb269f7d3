"""What an objective reports beside its loss: which charts it is in, and that the picture and the tables have it."""

import base64
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.browser.shown_runs import exam_run, preference_run, told_run
from tests.widgets.dashboard.told_runs import cells_of, started_run, step_event
from tunebook.events import EvalEvent, Notice, StepEvent
from tunebook.runs.folder import event_log
from tunebook_widgets.dashboard.compare import Comparison, _picture
from tunebook_widgets.dashboard.freeze import frozen_picture, frozen_table
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.metric_charts import MOST_CHARTS, metric_charts, rows_of_charts
from tunebook_widgets.dashboard.progress import COLUMNS, METRIC
from tunebook_widgets.dashboard.recorded import recorded_run
from tunebook_widgets.dashboard.status import status_table
from tunebook_widgets.dashboard.terminal import TerminalScreen, log_line

DPO = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"]
ORPO = [*DPO, "nll_loss", "log_odds_ratio", "log_odds_chosen"]
KTO = ["kl", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "rewards/margins"]


def shown(charts):
    return {chart.name: (*chart.curves, *([f"margin {chart.margin}"] if chart.margin else [])) for chart in charts}


def test_both_rewards_are_one_chart_with_their_margin_and_accuracy_and_kl_have_their_own():
    assert shown(metric_charts(DPO)) == {
        "rewards": ("rewards/chosen", "rewards/rejected", "margin rewards/margins"),
        "accuracy": ("rewards/accuracies",),
        "logps": ("logps/chosen", "logps/rejected"),
    }
    assert list(shown(metric_charts(KTO))) == ["rewards", "kl", "logps"]
    assert metric_charts(DPO)[1].limits == (0.0, 1.0)


@pytest.mark.parametrize("metrics", [DPO, ORPO, KTO, ["rewards/margins", "rewards/style"], ["a/b", "kl", "c", "a/d"]])
def test_every_metric_is_in_one_chart_whoever_reports_it(metrics):
    charts = metric_charts(metrics)
    told = [metric for chart in charts for metric in (*chart.curves, *([chart.margin] if chart.margin else []))]
    assert sorted(told) == sorted(metrics)
    assert all(len(chart.labels) == len(chart.curves) for chart in charts)


def test_metrics_that_nobody_knows_share_a_chart_by_the_word_before_the_slash():
    charts = metric_charts(["gate", "entropy/mean", "entropy/most"])
    assert [(chart.title, chart.labels) for chart in charts] == [("gate", ("gate",)), ("entropy", ("mean", "most"))]


@pytest.mark.parametrize("many", [1, 2, 3, 40])
def test_of_an_odd_number_of_charts_the_first_has_a_row_of_its_own(many):
    rows = rows_of_charts(metric_charts(f"metric {at}" for at in range(many)))
    assert sum(map(len, rows)) == min(many, MOST_CHARTS)
    assert all(len(row) == 2 for row in rows[min(many, MOST_CHARTS) % 2 :])


def test_a_run_of_the_next_token_has_no_such_chart():
    run, view = started_run(total=2), LiveView()
    run.add(step_event(1, total=2))
    view.publish(run)
    assert (run.columns, run.metrics, run.charts) == (COLUMNS, [], [])
    assert (view.columns, view.record["charts"], view.record["held_out"]) == ([*COLUMNS], [], {})
    assert "Reported" not in status_table(run)["text/html"]


def test_a_metric_is_nan_where_a_step_had_none_of_it_and_before_it_was_first_reported():
    run, view = started_run(total=700), LiveView()
    for step in range(1, 701):
        metrics = {"margin": 2.0 * step} if step % 2 else {"margin": None}
        run.add(step_event(step, total=700, metrics=metrics | ({"late": 7.0} if step > 690 else {})))
        if step in (3, 600, 691, 700):
            view.publish(run)
    rows = np.frombuffer(view.sealed + view.recent, "<f4").reshape(-1, len(view.columns))
    told = dict(zip(view.columns, rows.T, strict=True))
    steps = np.arange(1, 701)
    np.testing.assert_array_equal(told["step"], steps)
    np.testing.assert_array_equal(told[f"{METRIC}margin"], np.where(steps % 2, 2.0 * steps, math.nan))
    np.testing.assert_array_equal(told[f"{METRIC}late"], np.where(steps > 690, 7.0, math.nan))
    where, values = run.curve("margin")
    np.testing.assert_array_equal(values, 2 * where)


def test_what_only_the_held_out_rows_report_is_shown_as_points_alone():
    run = started_run(total=2)
    run.add(EvalEvent(step=0, loss=1.0, rows=1, tokens=1, seconds=1.0, metrics={"score": 0.5}))
    run.add(step_event(1, total=2))
    assert run.held_out("score") == [(0, 0.5)]
    assert np.isnan(run.column(f"{METRIC}score")).all()


def test_each_metric_of_an_exam_has_a_chart_to_itself_with_a_point_where_it_was_taken():
    run, view = told_run(exam_run()), LiveView()
    view.publish(run)
    assert [(chart.title, chart.curves, chart.points) for chart in run.charts] == [
        ("exact_match", ("exam/exact_match",), "exam"),
        ("perplexity", ("exam/perplexity",), "exam"),
    ]
    assert view.record["held_out"]["exam/exact_match"] == [[step, step / 10] for step in (0, 2, 4, 6, 8)]
    assert cells_of(frozen_table(run)["text/html"])["Exam"] == "exact_match 0 → 0.8, perplexity 200 → 40, over 40 rows"
    lines = []
    TerminalScreen(lines.append).update(run, run.scores[1])
    assert lines == ["step 2: exam of 40 rows: exact_match 0.2, perplexity 160"]


def test_the_frozen_picture_has_the_points_of_an_exam():
    bundle, _ = frozen_picture(told_run(exam_run()))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")).astype(int)
    group = pixels[480 : 480 + 260]  # below the loss: one row of two charts
    close = (np.abs(group[..., :3] - (213, 94, 0)).max(axis=-1) < 12) & (group[..., 3] > 240)
    assert close[:, : close.shape[1] // 2].sum() > 100
    assert close[:, close.shape[1] // 2 :].sum() > 100


def colored(run):
    """Of each half below the loss, where the picture has the charts of the exam, how many pixels are of its points."""
    bundle, _ = frozen_picture(run)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")).astype(int)
    group = pixels[480 : 480 + 260]
    close = (np.abs(group[..., :3] - (213, 94, 0)).max(axis=-1) < 12) & (group[..., 3] > 240)
    middle = close.shape[1] // 2
    return close[:, :middle].sum(), close[:, middle:].sum()


def test_the_picture_and_the_page_mark_the_best_score_where_the_run_goes_by_one():
    run, view = told_run(exam_run()), LiveView()
    view.publish(run)
    assert view.record["best_score"] is None
    plain = colored(run)
    run.started = replace(run.started, config={"metric_for_best_model": "exact_match"})
    view.publish(run)
    assert view.record["best_score"] == ["exam/exact_match", [[step, step, step / 10] for step in (0, 2, 4, 6, 8)]]
    marked = colored(run)
    assert marked[0] > plain[0] + 20  # a diamond is filled, and another stands in the legend
    assert marked[1] == plain[1]


def test_a_run_that_is_read_back_has_the_metrics_it_was_watched_with(tmp_path):
    keep, told = event_log(tmp_path), preference_run()
    for event in told:
        keep(event)
    read, watched = recorded_run(tmp_path), told_run(told)
    assert read.columns == watched.columns
    np.testing.assert_array_equal(read.rows(), watched.rows())


def test_lines_and_tables_say_the_figures_of_the_events():
    told = preference_run()
    run, last = told_run(told), [event for event in told if isinstance(event, StepEvent)][-1]
    score = [event for event in told if isinstance(event, EvalEvent)][-1].metrics
    margin, preferred = last.metrics["rewards/margins"], last.metrics["rewards/accuracies"]
    assert f"  {preferred:.0%} preferred  margin {margin:.3g}  " in log_line(run, last)
    assert f"{preferred:.0%} of pairs preferred, margin {margin:.3g}, " in status_table(run)["text/html"]
    answers = cells_of(frozen_table(run)["text/html"])["Held-out answers"]
    assert answers.startswith(
        f"{score['rewards/accuracies']:.0%} of pairs preferred, margin {score['rewards/margins']:.3g}"
    )
    assert answers.endswith(f"logps/rejected {score['logps/rejected']:.3g}")
    odd = replace(last, metrics={"entropy/mean": 1.25, "gate": 0.5})
    assert "  entropy/mean 1.25  gate 0.5  " in log_line(run, odd)


def test_the_frozen_picture_grows_by_the_charts_of_the_objective_and_shades_the_margin():
    run = told_run(preference_run())
    bundle, metadata = frozen_picture(run)
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    plain = started_run(total=60)
    plain.add(run.ended)
    assert image.size == (2 * metadata["image/png"]["width"], 2 * metadata["image/png"]["height"])
    assert metadata["image/png"]["height"] == frozen_picture(plain)[1]["image/png"]["height"] + 2 * 130
    pixels = np.asarray(image.convert("RGBA")).astype(int)
    group = pixels[480:1080]  # between the loss and what every run has
    solid = group[..., 3] > 240  # of 256 colours, none is quite solid
    for color in [(0, 158, 115), (156, 79, 140), (213, 94, 0)]:  # chosen, rejected, held-out accuracy
        assert ((np.abs(group[..., :3] - color).max(axis=-1) < 12) & solid).sum() > 300
    shade = (np.abs(group[..., :3] - (0, 158, 115)).max(axis=-1) < 12) & (abs(group[..., 3] - 0.16 * 255) < 3)
    assert shade.sum() > 20_000


def test_runs_are_compared_by_what_their_objectives_report():
    runs = told_run(preference_run()), told_run(preference_run(steps=40, started={"loss_unit": "DPO, per pair"}))
    compared = Comparison(("long", "short"), runs)
    rows = dict(compared.rows)
    assert [f"Last {metric}" in rows for metric in DPO] == [True] * 6
    scores = [f"held-out {run.held_out('rewards/margins')[-1][1]:.3g}" for run in runs]
    assert [value.partition(", ")[2] for value in rows["Last rewards/margins"]] == scores
    plain = Comparison(("one", "other"), (told_run(preference_run()), started_run(total=3)))
    assert dict(plain.rows)["Last rewards/margins"][1] == "–"
    assert Image.open(io.BytesIO(_picture(compared))).size == (1520, round(200 * (4.6 + 3 * 1.2)))


def test_an_alarm_crosses_to_the_page_and_other_notices_do_not_sound_one():
    run, view = started_run(total=9), LiveView()
    run.add(Notice(step=1, text="A row was cut."))
    run.add(Notice(step=2, text="The chosen answers become less likely.", alarm=True))
    view.publish(run)
    assert view.record["alarms"] == [[2, "The chosen answers become less likely."]]

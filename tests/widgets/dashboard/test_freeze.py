"""dashboard/freeze.py: the picture and the table that stay when a run has ended."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from tests.browser.rehearsal import Rehearsal
from tests.widgets.dashboard.told_runs import HtmlPage, cells_of, ended_run, rehearsed_run, started_run, step_event
from tunebook.events import (
    EndReason,
    EvalEvent,
    Notice,
    SampleEvent,
)
from tunebook_widgets.dashboard.freeze import frozen_picture, frozen_table
from tunebook_widgets.dashboard.live import LiveView
from tunebook_widgets.dashboard.picture import smoothed


def test_the_picture_is_a_png_at_twice_its_size_with_every_curve_in_it():
    run = rehearsed_run(Rehearsal(steps=30, seconds=0, broken=(12, 13)))
    bundle, metadata = frozen_picture(run)
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    pixels = np.asarray(image.convert("RGBA"))[..., :3].astype(int)
    shown = metadata["image/png"]
    assert image.size == (2 * shown["width"], 2 * shown["height"])
    assert set(bundle) == {"image/png", "text/plain"}
    # Loss, held-out, gradient norm, learning rate, speed, memory, and the band of what was not finite.
    drawn = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (156, 79, 140), (107, 124, 140), (138, 97, 0), (224, 167, 159)]
    for color in drawn:
        assert (np.abs(pixels - color).max(axis=-1) < 12).sum() > 300


def test_a_falling_loss_is_drawn_falling():
    run = started_run(total=50)
    for step in range(1, 51):
        run.add(step_event(step, total=50, loss=5.0 - 0.05 * step))
    run.add(ended_run(50, 50))
    image = Image.open(io.BytesIO(base64.b64decode(frozen_picture(run)[0]["image/png"]))).convert("RGBA")
    rows, columns = np.nonzero(np.abs(np.asarray(image)[..., :3].astype(int) - (0, 114, 178)).max(axis=-1) < 12)
    curve = (rows > 70) & (rows < 560)  # below the legend, above the other charts
    assert np.corrcoef(columns[curve], rows[curve])[0, 1] > 0.98  # rows count from the top


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_hardly_began_still_leaves_a_picture_and_a_table(steps):
    run = started_run(total=9)
    for step in range(1, steps + 1):
        run.add(step_event(step, total=9, loss=math.nan))
    run.add(ended_run(steps, 9, EndReason.FAILED, "The GPU ran out of memory."))
    picture, _ = frozen_picture(run)
    table = cells_of(frozen_table(run)["text/html"])
    assert Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))).size == (1520, 1120)
    assert table["Steps"] == f"{steps} of 9 in 7.0 s"
    assert table["Ended"] == "The GPU ran out of memory."


def test_the_table_holds_the_numbers_of_the_run():
    run = started_run(total=4, model="org/model")
    for step, (loss, held_out) in enumerate([(2.5, 2.25), (2.0, 1.75), (1.5, 1.25), (1.75, 1.5)], start=1):
        run.add(step_event(step, total=4, loss=loss, tokens_sec=100.0 * step, num_tokens=700 * step))
        run.add(EvalEvent(step=step, loss=held_out, rows=4, tokens=40, seconds=1.0))
    run.add(ended_run(4, 4))
    bundle = frozen_table(run)
    table = cells_of(bundle["text/html"])
    assert table["Model"] == "org/model"
    assert table["Trained"] == "25 parameters (2.50 %)"
    assert table["Loss"] == "2.500 → 1.750"
    assert table["Held-out loss"] == "2.250 → 1.500, best 1.250 at step 3"
    assert table["Tokens"] == "2,800 trained, 250 per second"
    assert table["Peak memory"] == "1.50 GB"
    sentence = "Finished all 4 steps in 7.0 s · loss 2.500 → 1.750 · best held-out loss 1.250 at step 3."
    assert sentence in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[0] == sentence


def test_markup_in_a_frozen_run_stays_text():
    attack = '<img src=x onerror=alert(1)> & "quoted" <script>alert(2)</script>'
    run = started_run(total=1, model=attack)
    run.add(Notice(step=1, text=attack))
    run.add(SampleEvent(step=1, prompt=attack, text=attack, seconds=1.0))
    run.add(step_event(1, total=1))
    run.add(ended_run(1, 1, EndReason.FAILED, attack))
    page = HtmlPage(frozen_table(run)["text/html"])
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "em", "br"}
    assert page.text.count(attack) == 5


def test_a_saved_notebook_keeps_what_the_model_wrote_at_first_and_at_last():
    run = started_run(total=4)
    for step in (0, 2, 4):
        for prompt in ("Why?", "Who?"):
            run.add(SampleEvent(step=step, prompt=prompt, text=f"{prompt} after {step}", seconds=1.0))
    run.add(ended_run(4, 4))
    text = frozen_table(run)["text/plain"]
    assert [line for line in text.splitlines() if "→" in line] == [
        "step 0: 'Why?' → 'Why? after 0'",
        "step 4: 'Why?' → 'Why? after 4'",
        "step 0: 'Who?' → 'Who? after 0'",
        "step 4: 'Who?' → 'Who? after 4'",
    ]


def test_a_saved_notebook_has_question_before_and_after_side_by_side_with_code_as_code():
    run = started_run(total=4)
    asked = "What does this do?\n```python\ndef f(x):\n    return x < 1\n```"
    for step, text in [(0, "It is."), (2, "In between."), (4, "It compares:\n`x < 1`")]:
        run.add(SampleEvent(step=step, prompt=asked, text=text, seconds=1.0))
    run.add(ended_run(4, 4))
    table = frozen_table(run)["text/html"].split("<table>")[-1]
    assert HtmlPage(table).headings == ["Question", "Before", "After"]
    assert "What does this do?<pre><code>def f(x):\n    return x &lt; 1</code></pre>" in table
    assert "<em>base model</em><br>It is.</td>" in table
    assert "<em>step 4</em><br>It compares:<br>`x &lt; 1`</td>" in table
    assert "In between" not in table


@pytest.mark.parametrize("steps", [0, 6])
def test_the_picture_has_no_ground_of_its_own_and_is_read_on_white_and_on_black(steps):
    run = rehearsed_run(Rehearsal(steps=6, seconds=0)) if steps else started_run(total=9)
    if not steps:
        run.add(ended_run(0, 9))
    bundle, metadata = frozen_picture(run)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")).astype(int)
    assert "needs_background" not in metadata
    assert (image[..., 3] == 0).mean() > 0.8
    opaque = image[image[..., 3] > 250][:, :3]
    # WCAG 2.2: a graphic is told from what is around it by a ratio of luminance of 3, counted without its gamma.
    channel = np.where(opaque <= 10, opaque / 255 / 12.92, ((opaque / 255 + 0.055) / 1.055) ** 2.4)
    light = channel @ [0.2126, 0.7152, 0.0722]
    dark_paper = ((0x11 / 255 + 0.055) / 1.055) ** 2.4  # #111111, JupyterLab's
    assert np.quantile(1.05 / (light + 0.05), 0.02) >= 3
    assert np.quantile((light + 0.05) / (dark_paper + 0.05), 0.02) >= 3


def test_only_the_last_notices_are_kept_and_the_others_counted():
    run = started_run(total=1)
    for step in range(50):
        run.add(Notice(step=step, text="odd"))
    run.add(ended_run(0, 1))
    view = LiveView()
    view.publish(run)
    html = frozen_table(run)["text/html"]
    assert html.count("<li>") == 21
    assert "30 earlier notices" in html
    assert (len(view.record["notices"]), view.record["hidden_notices"]) == (20, 30)


def test_the_smoothed_loss_is_the_mean_of_the_last_twentieth_of_the_steps_and_within_their_range():
    values = np.random.default_rng(0).normal(size=500) + np.linspace(9, 1, 500)
    values[[7, 8, 9, 200]] = [math.nan, math.inf, math.nan, math.nan]
    for taken, got in enumerate(smoothed(values), start=1):
        window = values[max(0, taken - max(3, math.ceil(taken / 20))) : taken]
        seen = window[np.isfinite(window)]
        if not math.isfinite(values[taken - 1]):
            assert math.isnan(got)
            continue
        assert got == pytest.approx(seen.mean())
        assert seen.min() - 1e-9 <= got <= seen.max() + 1e-9
    assert smoothed(np.arange(10_000.0))[-1] == pytest.approx(9_999 - 99 / 2)  # of a hundred at most
    assert len(smoothed(np.zeros(0))) == 0

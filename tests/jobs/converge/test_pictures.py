from __future__ import annotations

import base64
import io
import re
import struct
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex

from cryobridge.errors import CryobridgeError, MissingDataError
from cryobridge.jobs.converge.drawing import Pictures
from cryobridge.jobs.converge.html_page import html_page, write_html
from cryobridge.jobs.converge.outputs import OutputFiles
from cryobridge.model.classification import History, Iteration, IterationMetrics, Verdict
from cryobridge.plots.converge import draw, flow_sheet, iteration_sheet, summary_sheet
from cryobridge.plots.converge_metrics import measure, round_ticks
from cryobridge.plots.converge_populations import percent, points, spread
from cryobridge.plots.page import lay_out, png, written_as
from cryobridge.report import warning

RULE = "Converged when under 1 % change class in 3 iterations and no population moves by more than 2 %."


def assignments(n_classes, n_iterations, n_particles, seed=0, rate=0.3, still_from=None):
    """Classes from 0, (n_iterations, n_particles): each iteration moves a smaller part of the particles."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, n_classes, n_particles)]
    favoured = rng.dirichlet(np.full(n_classes, 0.7))
    for step in range(1, n_iterations):
        part = 0.0 if still_from is not None and step >= still_from else rate * 0.8**step
        moves = rng.random(n_particles) < part
        rows.append(np.where(moves, rng.choice(n_classes, n_particles, p=favoured), rows[-1]))
    return np.array(rows)


def build(rows, n_classes, *, numbers=None, figures=None, **changes):
    numbers = range(1, len(rows) + 1) if numbers is None else numbers
    iterations = []
    for place, (number, classes) in enumerate(zip(numbers, rows, strict=True)):
        transitions = None
        if place:
            pairs = rows[place - 1] * n_classes + classes
            transitions = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
        iterations.append(
            Iteration(
                number,
                Path(f"run_it{number:03d}_data.star"),
                len(classes),
                np.bincount(classes, minlength=n_classes),
                transitions,
                metrics=figures[place] if figures else IterationMetrics(),
            )
        )
    verdict = Verdict(False, RULE, "In the last iteration 3.0 % of the particles changed class.", 4)
    history = History(Path("Class2D/job019"), "RELION", "Class2D", tuple(iterations), 0.01, verdict)
    return replace(history, **changes)


def relion_figures(n_classes, n_iterations):
    rng = np.random.default_rng(5)
    return [
        IterationMetrics(
            changed_fraction=0.5 / (step + 1),
            orientation_change_deg=3.0,
            offset_change_A=1.0,
            resolution_A=8 + 30 / (step + 1),
            class_distribution=np.full(n_classes, 1 / n_classes),
            class_resolution_A=rng.uniform(8, 20, n_classes),
        )
        for step in range(n_iterations)
    ]


def simulated(n_classes=5, n_iterations=8, n_particles=3000, **options):
    rows = assignments(n_classes, n_iterations, n_particles, still_from=options.pop("still_from", None))
    return build(rows, n_classes, **options), rows


def figure_of(sheet):
    figure = lay_out(sheet)
    written_as(figure, "png")
    return figure


def panel(figure, start):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(start))


def line(axes, name):
    return next(line for line in axes.lines if line.get_label() == name)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def collection(axes, kind):
    return [found for found in axes.collections if isinstance(found, kind) and found.get_label() != "_leaders"]


def png_size(content):
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


# Every picture of every history


EXTREMES = {
    "1 class": lambda: simulated(1)[0],
    "3 classes": lambda: simulated(3)[0],
    "1 iteration": lambda: simulated(5, 1)[0],
    "1 iteration, 200 classes": lambda: simulated(200, 1)[0],
    "2 iterations": lambda: simulated(5, 2)[0],
    "3 iterations, 100 classes": lambda: simulated(100, 3)[0],
    "60 iterations": lambda: simulated(10, 60, 500, figures=relion_figures(10, 60))[0],
    "11 classes": lambda: simulated(11, 4)[0],
    "200 classes": lambda: simulated(200, 20, figures=relion_figures(200, 20))[0],
    "gaps": lambda: simulated(5, 4, numbers=[0, 10, 11, 200])[0],
    "nothing changes": lambda: simulated(4, 4, still_from=1)[0],
    "nothing changes, 50 classes": lambda: simulated(50, 4, still_from=1)[0],
    "one class has all": lambda: build(np.zeros((3, 9), np.int64), 30),
    "no particle": lambda: build(np.zeros((3, 0), np.int64), 3),
    "no particle, 40 classes": lambda: build(np.zeros((3, 0), np.int64), 40),
    "threshold 0": lambda: simulated(5, 4, threshold=0.0)[0],
    "threshold 1": lambda: simulated(5, 4, threshold=1.0)[0],
    "no figures of a class": lambda: simulated(5, 2, figures=[IterationMetrics(resolution_A=8.0)] * 2)[0],
    "senseless figures": lambda: simulated(
        3,
        2,
        figures=[
            IterationMetrics(
                np.nan, np.inf, None, 0.0, None, None, -np.inf, np.full(2, np.nan), np.array([np.inf, 999, -1, 5])
            ),
            IterationMetrics(0.0, None, None, np.inf, None, None, None, np.zeros(9), np.zeros(0)),
        ],
    )[0],
    "12 million particles": lambda: replace(
        simulated(3, 2)[0],
        iterations=tuple(
            Iteration(number, Path("x"), 12_000_000, np.array([9_999_999, 2_000_000, 1]), transitions)
            for number, transitions in (
                (1, None),
                (2, np.array([[9_000_000, 999_999, 0], [999_999, 1_000_000, 1], [0, 1, 0]])),
            )
        ),
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_every_picture_and_the_page_can_be_made_of_every_history(tmp_path, name):
    history = EXTREMES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_html(history, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    # The page holds the three pictures as they are written into files.
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', (tmp_path / "page.html").read_text())
    assert len(pictures) == 3
    for picture in map(base64.b64decode, pictures):
        width, height = png_size(picture)
        assert 500 < width < 1500  # in a window of 1200 pixels its texts can be read
        assert 300 < height < 1300
        pixels = matplotlib.image.imread(io.BytesIO(picture))
        assert pixels.shape[:2] == (height, width)
        assert pixels[..., :3].std() > 0.01


@pytest.mark.parametrize("name", ["1 iteration", "11 classes", "60 iterations", "200 classes", "12 million particles"])
def test_no_text_stands_outside_the_page_or_on_another_end_label(name):
    history = EXTREMES[name]()
    for sheet in (iteration_sheet(history, history.iterations[-1].number), summary_sheet(history), flow_sheet(history)):
        figure = figure_of(sheet)
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            around = axes.get_tightbbox(renderer)
            assert around.x0 >= -1
            assert around.y0 >= 0
            assert around.x1 <= figure.bbox.width + 1
            boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
            ends = sorted((b for b in boxes if b.x0 > axes.bbox.x1), key=lambda box: box.y0)
            for low, high in pairwise(ends):
                assert low.y1 < high.y0 + 3


def test_a_history_without_iterations_has_no_picture_but_a_page(tmp_path):
    history = History(Path("job"), "RELION", "", (), 0.01, Verdict(None, RULE, "There is no iteration.", None))
    for sheet in (summary_sheet, flow_sheet, lambda history: iteration_sheet(history, 1)):
        with pytest.raises(MissingDataError, match="no iteration") as caught:
            sheet(history)
        assert caught.value.hint
    write_html(history, tmp_path / "page.html")
    assert "Too early to decide" in (tmp_path / "page.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_an_older_picture_is_replaced_and_a_failure_leaves_it(tmp_path, monkeypatch):
    history, _ = simulated()
    outputs = OutputFiles(tmp_path)
    target = tmp_path / "converge_summary.png"
    target.write_text("older")
    with monkeypatch.context() as patched:
        patched.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            outputs.write(history, [], Pictures())
    assert target.read_text() == "older"
    written = outputs.write(history, [], Pictures())
    assert png_size(target.read_bytes())
    assert sorted(written) == sorted(tmp_path.iterdir())
    target.unlink()
    target.mkdir()
    with pytest.raises(CryobridgeError, match="can't be written"):
        outputs.write(history, [], Pictures())
    with pytest.raises(CryobridgeError, match="can't be written"):
        write_html(history, tmp_path / "absent" / "x")


# Beside the reading


def read_one_by_one(history):
    """The history as it was when each iteration had just been read."""
    return [replace(history, iterations=history.iterations[: n + 1]) for n in range(len(history.iterations))]


@pytest.mark.parametrize("name", ["gaps", "3 iterations, 100 classes"])
def test_a_picture_that_is_drawn_beside_the_reading_is_the_one_that_is_drawn_at_the_end(name):
    history = EXTREMES[name]()
    pictures, here = Pictures(), Pictures()
    numbers = [step.number for step in history.iterations]
    with pictures.beside():
        for so_far in read_one_by_one(history):
            pictures.draw_ahead(so_far, each=True)
        for which in (*numbers[:2], numbers[-1], "summary", "flow"):
            assert pictures.get(history, which) == here.get(history, which) == draw(history, which)


def test_what_has_changed_since_it_was_drawn_is_drawn_again():
    history, rows = simulated(5, 4)
    other = build(rows, 6)  # another class has come
    pictures = Pictures()
    with pictures.beside():
        for so_far in read_one_by_one(history):
            pictures.draw_ahead(so_far, each=True)
        assert pictures.get(other, 2) == draw(other, 2) != draw(history, 2)


def test_a_process_that_ends_while_it_draws_is_said_with_what_to_do(monkeypatch):
    history, _ = simulated(3, 2)
    monkeypatch.setattr("cryobridge.executors.helper_process.sys.executable", "/bin/false")
    pictures = Pictures()
    with pictures.beside(), pytest.raises(CryobridgeError, match="the process was ended") as caught:
        pictures.get(history, "summary")
    assert "plots=False" in caught.value.hint_text()


# After an iteration


def test_the_lines_are_the_populations_so_far():
    history, rows = simulated(5, 8, numbers=range(3, 11))
    figure = figure_of(iteration_sheet(history, 7))
    axes = panel(figure, "Particles in each class")
    for index in range(5):
        drawn = line(axes, f"class {index + 1}")
        assert drawn.get_xdata().tolist() == [3, 4, 5, 6, 7]
        assert drawn.get_ydata().tolist() == [(row == index).sum() for row in rows[:5]]
    assert len({to_hex(drawn.get_color()) for drawn in axes.lines}) == 5
    shares = [100 * (rows[4] == index).mean() for index in range(5)]
    assert texts(axes) == [f"class {index + 1}: {share:.1f} %" for index, share in enumerate(shares)]
    assert "iteration 7, 3,000 particles" in figure.texts[0].get_text()


def test_the_bars_are_the_populations_now_with_marks_of_the_iteration_before():
    history, rows = simulated(5, 4)
    axes = panel(figure_of(iteration_sheet(history, 4)), "Iteration 4")
    counts = [(rows[3] == index).sum() for index in range(5)]
    assert [bar.get_width() for bar in axes.patches] == counts
    (marks,) = collection(axes, LineCollection)
    assert [segment[0, 0] for segment in marks.get_segments()] == [(rows[2] == index).sum() for index in range(5)]
    for text, count, index in zip(texts(axes), counts, range(5), strict=True):
        change = 100 * ((rows[3] == index).mean() - (rows[2] == index).mean())
        assert text.startswith(f"{count:,} (")
        assert float(text.split(", ")[-1].replace("−", "-")) == pytest.approx(change, abs=0.0501)
    first = panel(figure_of(iteration_sheet(history, 1)), "Iteration 1")
    assert not first.collections
    assert all("," not in text.split(" (")[1] for text in texts(first))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 5, 10])
def test_bars_fill_the_axes_and_marks_cross_no_text(n_classes):
    rows = np.arange(1000) % n_classes
    shrunk = np.where(np.arange(1000) < 300, 0, rows)  # all classes but the first lose particles
    figure = figure_of(iteration_sheet(build([rows, shrunk], n_classes), 2))
    axes = panel(figure, "Iteration 2")
    assert axes.get_ylim() == (n_classes - 0.5, -0.5)
    renderer = figure.canvas.get_renderer()
    (marks,) = collection(axes, LineCollection)
    ends = axes.transData.transform([segment[0] for segment in marks.get_segments()])[:, 0]
    for text, end in zip(axes.texts, ends, strict=True):
        assert text.get_window_extent(renderer).x0 > end + 1


@pytest.mark.parametrize("n_classes", [4, 40])
def test_the_two_matrices_of_a_picture_have_one_scale_of_colours(n_classes):
    history, _ = simulated(n_classes, 6)
    figure = figure_of(flow_sheet(history))
    matrices = [axes for axes in figure.axes if axes.images]
    assert len(matrices) == 2
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in matrices}) == 1
    scales = [found for axes in figure.axes for found in axes.child_axes]
    assert [scale.get_ylabel() for scale in scales] == ["particles that changed class"]


@pytest.mark.parametrize(("most", "ticks"), [(2, "1 2"), (3, "1 2 3"), (9, "1 2 3 4 5 6 7 8 9"), (24, "1 2 5 10 20")])
def test_the_scale_of_colours_names_each_count_where_there_are_few(most, ticks):
    # In the one step a class each loses `most` particles to the other, or one.
    rows = np.zeros((2, 60), int)
    rows[0, 30:] = 1
    rows[1] = rows[0]
    rows[1, :most], rows[1, 30] = 1, 0
    figure = figure_of(flow_sheet(build(rows, 2)))
    (scale,) = [found for axes in figure.axes for found in axes.child_axes]
    figure.canvas.draw()
    assert " ".join(label.get_text() for label in scale.get_yticklabels()) == ticks


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(3.1, "Å", "3.10 Å"), (12.345, "Å", "12.35 Å"), (0.6, "°", "0.60°"), (123, "Å", "123.0 Å")],
)
def test_measures_have_the_digits_of_the_tables(value, unit, text):
    assert measure(value, unit) == text


@given(st.floats(0.5, 900), st.floats(1.12, 500))
def test_ticks_of_resolutions_are_round_numbers(low, ratio):
    ticks = round_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 10
    assert all(low <= tick <= low * ratio for tick in ticks)
    digits = 2 if ratio > 3 else 4
    assert all(float(f"{tick:.{digits}g}") == pytest.approx(tick, rel=1e-12) for tick in ticks)


def test_of_many_classes_the_largest_have_colours_and_the_map_has_all():
    n_classes = 40
    history, rows = simulated(n_classes, 6, 8000)
    figure = figure_of(iteration_sheet(history, 6))
    axes = panel(figure, "Particles in each class")
    counts = np.array([(rows[-1] == index).sum() for index in range(n_classes)])
    largest = set((np.sort(np.argsort(-counts)[:8]) + 1).tolist())
    assert {int(drawn.get_label().split()[1]) for drawn in axes.lines} == largest
    assert "8 of 40; gray: the others" in figure.texts[1].get_text().replace("\n", " ")
    (rest,) = collection(axes, LineCollection)
    drawn = sorted(tuple(segment[:, 1]) for segment in rest.get_segments())
    others = [index for index in range(n_classes) if index + 1 not in largest]
    assert drawn == sorted(tuple(float((row == index).sum()) for row in rows) for index in others)
    image = panel(figure, "Each class").images[0]
    shown = np.ma.filled(image.get_array().astype(float), 0)
    assert np.array_equal(np.nan_to_num(shown).sum(axis=0), [8000] * 6)
    order = np.argsort(-counts, kind="stable")
    assert np.nan_to_num(shown)[:, 2].tolist() == [(rows[2] == index).sum() for index in order]
    labels = [label.get_text() for label in panel(figure, "Each class").get_yticklabels()]
    assert labels[0] == str(order[0] + 1)


def test_a_class_seldom_changes_its_colour_between_pictures():
    history, _ = simulated(40, 8, 8000)
    colours = {}
    for number in range(2, 9):
        figure = figure_of(iteration_sheet(history, number))
        drawn = {found.get_label(): to_hex(found.get_color()) for found in panel(figure, "Particles in").lines}
        assert len(set(drawn.values())) == len(drawn) == 8
        for name, colour in drawn.items():
            colours.setdefault(name, []).append(colour)
    often = [name for name, found in colours.items() if len(found) > 1]
    assert len(often) >= 8
    assert sum(len(set(colours[name])) == 1 for name in often) > 0.7 * len(often)


def test_an_absent_iteration_is_refused():
    history, _ = simulated(5, 3, numbers=[0, 10, 20])
    with pytest.raises(MissingDataError, match="no iteration 5") as caught:
        iteration_sheet(history, 5)
    assert "0 to 20" in caught.value.hint


# The summary


def test_the_changed_fraction_is_counted_and_beside_the_programs_own():
    figures = relion_figures(4, 6)
    history, rows = simulated(4, 6, figures=figures)
    axes = panel(figure_of(summary_sheet(history)), "Particles that changed")
    counted = line(axes, "counted").get_ydata()
    assert np.isnan(counted[0])
    expected = [100 * (rows[step] != rows[step - 1]).mean() for step in range(1, 6)]
    assert counted[1:] == pytest.approx(expected)
    theirs = line(axes, "RELION").get_ydata()
    assert np.isnan(theirs[0])  # the classes before were none, or of an earlier job
    assert theirs[1:] == pytest.approx([50 / step for step in range(2, 7)])
    assert axes.get_yscale() == "log"
    assert set(line(axes, "threshold").get_ydata()) == {1.0}
    assert "threshold: 1 %" in texts(axes)


def test_a_changed_fraction_of_0_stands_at_a_tick_named_0():
    history, _ = simulated(4, 7, still_from=4)
    figure = figure_of(summary_sheet(history))
    axes = panel(figure, "Particles that changed")
    zeros = line(axes, "_counted 0")
    assert zeros.get_xdata().tolist() == [5, 6, 7]
    (height,) = set(zeros.get_ydata())
    ticks = {label.get_text(): place for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert ticks["0"] == height
    others = [float(text) for text in ticks if text != "0"]
    assert all(float(text) == pytest.approx(place) for text, place in ticks.items() if text != "0")
    assert height < min(others)
    assert axes.get_ylim()[0] < height
    assert "counted: 0 %" in texts(axes)
    without = panel(figure_of(summary_sheet(simulated(4, 4)[0])), "Particles that changed")
    assert "0" not in [label.get_text() for label in without.get_yticklabels()]


def test_occupied_and_effective_classes():
    rows = np.array([[0] * 25 + [1] * 25 + [2] * 25 + [3] * 25, [0] * 50 + [1] * 50, [2] * 100])
    figure = figure_of(summary_sheet(build(rows, 6)))
    axes = panel(figure, "Classes with particles")
    assert line(axes, "occupied").get_ydata().tolist() == [4, 2, 1]
    assert line(axes, "effective").get_ydata() == pytest.approx([4, 2, 1])
    assert sorted(texts(axes)) == ["effective: 1.0", "occupied: 1 of 6"]


def test_the_resolution_of_empty_classes_is_not_drawn_and_finer_is_higher():
    rows = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
    figures = [
        IterationMetrics(resolution_A=20.0, class_resolution_A=np.array([20.0, 25.0, 999.0])),
        IterationMetrics(resolution_A=9.0, class_resolution_A=np.array([9.0, 30.0, np.inf])),
    ]
    axes = panel(figure_of(summary_sheet(build(rows, 3, figures=figures))), "Resolution")
    assert line(axes, "all").get_ydata().tolist() == [20, 9]
    assert line(axes, "class 1").get_ydata().tolist() == [20, 9]
    assert np.array_equal(line(axes, "class 2").get_ydata(), [25, np.nan], equal_nan=True)
    assert "class 3" not in [drawn.get_label() for drawn in axes.lines]
    low, high = axes.get_ylim()
    assert low > 25
    assert high < 9
    silent = panel(figure_of(summary_sheet(build(rows, 3))), "Resolution")
    assert texts(silent) == ["The files of this job have no resolution."]


def test_the_summary_tells_verdict_rule_and_the_first_warnings():
    history, _ = simulated(messages=tuple(warning("one", f"warning {number}") for number in range(9)))
    figure = figure_of(summary_sheet(history))
    heading, notes = (text.get_text().replace("\n", " ") for text in figure.texts)
    assert "not converged. In the last iteration 3.0 %" in heading
    assert "About 4 more iterations" in heading
    assert RULE in notes
    assert "⚠ warning 3" in notes
    assert "warning 4" not in notes
    assert "and 5 more warnings" in notes


# The flows


def test_the_bands_have_the_sizes_of_the_transitions():
    history, rows = simulated(4, 9, 2000)
    axes = panel(figure_of(flow_sheet(history)), "Iterations 4 to 9")
    kept, moved = collection(axes, PolyCollection)
    same = [((rows[s] == k) & (rows[s + 1] == k)).sum() for s in range(3, 8) for k in range(4)]
    assert [band_width(path) for path in kept.get_paths()] == pytest.approx(same)
    changes = [
        ((rows[s] == a) & (rows[s + 1] == b)).sum() for s in range(3, 8) for a in range(4) for b in range(4) if a != b
    ]
    assert sorted(band_width(path) for path in moved.get_paths()) == pytest.approx(sorted(c for c in changes if c))
    blocks = [bar.get_height() for bar in axes.patches]
    assert blocks == [(rows[s] == k).sum() for s in range(3, 9) for k in range(4)]


def band_width(path):
    corners = path.vertices[: len(path.vertices) // 2 * 2]
    start = corners[np.isclose(corners[:, 0], corners[:, 0].min())][:, 1]
    return start.max() - start.min()


def test_bands_start_and_end_within_the_blocks_of_their_classes():
    history, _ = simulated(4, 3, 500)
    axes = panel(figure_of(flow_sheet(history)), "Iterations 1 to 3")
    blocks = [(bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    for bands in collection(axes, PolyCollection):
        for path in bands.get_paths():
            for end in (path.vertices[:, 0].min(), path.vertices[:, 0].max()):
                y = path.vertices[np.isclose(path.vertices[:, 0], end)][:, 1]
                column = round(end)
                assert any(
                    round(x) == column and low - 1e-6 <= y.min() and y.max() <= high + 1e-6 for x, low, high in blocks
                )


def test_few_classes_have_matrices_with_numbers():
    history, rows = simulated(3, 3, 600)
    figure = figure_of(flow_sheet(history))
    axes = panel(figure, "Iteration 2 to 3")
    assert f"{100 * (rows[1] != rows[2]).mean():.1f} % changed" in axes.get_title(loc="left")
    counts = {(a, b): int(((rows[1] == a) & (rows[2] == b)).sum()) for a in range(3) for b in range(3)}
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {place: str(count) for place, count in counts.items() if count}
    both = panel(figure, "Iterations 1 to 3, 2 steps")
    sums = {(a, b): counts[a, b] + int(((rows[0] == a) & (rows[1] == b)).sum()) for a, b in counts}
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in both.texts}
    assert written == {place: str(count) for place, count in sums.items() if count}


def test_many_classes_have_matrices_and_the_largest_moves():
    n_classes = 60
    history, rows = simulated(n_classes, 9, 20_000)
    figure = figure_of(flow_sheet(history))
    moved = np.zeros((n_classes, n_classes), int)
    for step in range(3, 8):
        is_moved = rows[step] != rows[step + 1]
        for a, b in zip(rows[step][is_moved], rows[step + 1][is_moved], strict=True):
            moved[a, b] += 1
    shown = panel(figure, "Iterations 4 to 9, 5 steps").images[0].get_array()
    assert np.array_equal(np.nan_to_num(np.ma.filled(shown, 0)), moved)
    axes = panel(figure, "Iterations 4 to 9: largest")
    assert [bar.get_width() for bar in axes.patches] == sorted(moved.ravel(), reverse=True)[:20]
    for bar, label in zip(axes.patches, axes.get_yticklabels(), strict=True):
        source, target = map(int, label.get_text().split(" → "))
        assert moved[source - 1, target - 1] == bar.get_width()
    last_axes = panel(figure, "Iteration 8 to 9")
    (scale,) = panel(figure, "Iterations 4 to 9, 5 steps").child_axes
    ticks = [int(label.get_text().replace(",", "")) for label in scale.get_yticklabels()]
    assert ticks == scale.get_yticks().tolist()
    assert len(ticks) >= 2
    last = last_axes.images[0].get_array()
    assert np.nan_to_num(np.ma.filled(last, 0)).sum() == (rows[7] != rows[8]).sum()


def test_particles_that_came_or_went_are_reported_below_the_flows():
    history, _ = simulated(3, 3)
    steps = list(history.iterations)
    steps[2] = replace(steps[2], arrived=1234, departed=5)
    figure = figure_of(flow_sheet(replace(history, iterations=tuple(steps))))
    assert "1,234 particles came and 5 went" in figure.texts[1].get_text().replace("\n", " ")


# Words and labels


@given(
    heights=st.lists(st.floats(0, 1), min_size=1, max_size=11),
    distance=st.floats(0.01, 0.09),
)
def test_labels_are_moved_apart_within_the_axes_and_keep_their_order(heights, distance):
    given_heights = np.array(heights)
    moved = spread(given_heights, distance)
    order = np.argsort(given_heights, kind="stable")
    assert np.diff(moved[order]).min(initial=1) >= distance - 1e-9
    assert moved.min() >= -1e-9
    assert moved.max() <= 1 + 1e-9
    far = np.diff(np.sort(given_heights)).min(initial=1) >= distance
    if far:
        assert moved == pytest.approx(given_heights)


def test_percentages_in_words():
    words = [percent(part, 1000) for part in (0, 0.001, 0.1, 1.5, 42.34, 1000)]
    assert words == ["0 %", "< 0.001 %", "0.010 %", "0.15 %", "4.2 %", "100.0 %"]
    assert percent(0, 0) == "0 %"
    assert [points(change, 1) for change in (0.012, -0.0004, -0.03, 0)] == ["+1.2", "0.0", "−3.0", "0.0"]


# The page


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "wbr", "circle", "polyline"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.tables = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def rows_of(table):
    head, *rows = table
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_page_holds_the_pictures_and_nothing_from_outside():
    history, _ = simulated(5, 4, figures=relion_figures(5, 4))
    text = html_page(history)
    page = Page(text)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in images]
    assert pictures == [
        png(sheet) for sheet in (summary_sheet(history), iteration_sheet(history, 4), flow_sheet(history))
    ]
    assert not {"script", "link", "iframe", "object", "a", "base"} & {tag for tag, _ in page.tags}
    without_pictures = re.sub(r'src="data:[^"]*"', "", text)
    assert not re.search(r"https?:|//|url\(|@import|href|srcset", without_pictures.replace("</", ""))
    assert "prefers-color-scheme: dark" in text
    # Within its table a caption is as wide as that, and cut in a narrow window.
    assert "caption" not in {tag for tag, _ in page.tags}
    assert "Changed, came and went: since the row above." in "".join(page.text)
    assert ("meta", {"charset": "utf-8"}) in page.tags


class Blank(Pictures):
    """No pictures, for what is looked at is beside them."""

    def get(self, _history, _which):
        return b""


def test_the_table_of_iterations_is_the_history():
    history, rows = simulated(5, 4, figures=relion_figures(5, 4))
    steps = list(history.iterations)
    steps[3] = replace(steps[3], arrived=7, unassigned=2)
    page = Page(html_page(replace(history, iterations=tuple(steps)), Blank()))
    message = rows_of(page.tables[0])
    assert [row["iteration"] for row in message] == ["1", "2", "3", "4"]
    assert {row["particles"] for row in message} == {"3,000"}
    assert message[0]["changed"] == message[0]["changed (%)"] == "–"
    for step in (1, 2, 3):
        changed = rows[step] != rows[step - 1]
        assert message[step]["changed"] == f"{changed.sum():,}"
        assert float(message[step]["changed (%)"].removesuffix(" %")) == pytest.approx(100 * changed.mean(), abs=0.051)
    assert [row["came"] for row in message] == ["0", "0", "0", "7"]
    assert [row["without a class"] for row in message] == ["0", "0", "0", "2"]
    assert "went" not in message[0]
    counts = np.bincount(rows[2], minlength=5)
    assert message[2]["largest class"] == f"{counts.argmax() + 1}: {counts.max() / 30:.1f} %"
    assert message[2]["smallest class"] == f"{counts.argmin() + 1}: {counts.min() / 30:.1f} %"
    assert message[1]["RELION: changed (%)"] == "25.0 %"
    assert message[1]["resolution (Å)"] == "23.00"
    assert "log-likelihood" not in message[0]
    assert message[3]["file"] == "run_it004_data.star"


def test_large_numbers_in_the_tables_have_commas_and_a_minus_sign():
    history, _ = simulated(2, 2)
    steps = tuple(
        replace(step, metrics=replace(step.metrics, log_likelihood=value))
        for step, value in zip(history.iterations, (-1250000.4, 0.14332), strict=True)
    )
    message = rows_of(Page(html_page(replace(history, iterations=steps), Blank())).tables[0])
    assert [row["log-likelihood"] for row in message] == ["−1,250,000", "0.14"]


def test_the_table_of_classes_tells_late_and_dead_ones_and_exchanges():
    rows = np.array(
        [
            [0, 0, 0, 0, 1, 1, 1, 3],
            [0, 0, 0, 1, 1, 1, 1, 0],
            [0, 0, 2, 1, 1, 1, 1, 0],
        ]
    )
    message = rows_of(Page(html_page(build(rows, 5), Blank())).tables[1])
    by_class = {row["class"]: row for row in message}
    assert [row["class"] for row in message] == ["2", "1", "3", "4", "5"]
    assert by_class["1"]["particles"] == "3"
    assert by_class["1"]["share"] == "37.5 %"
    assert by_class["1"]["change (percentage points)"] == "−12.50"
    # Of the 8 times that a particle was in class 1 before a step, it stayed in 6.
    assert by_class["1"]["kept"] == "75.0 %"
    assert by_class["1"]["moved to"] == "2 (1), 3 (1)"
    assert by_class["1"]["came from"] == "4 (1)"
    assert by_class["2"]["presence"] == ""
    assert by_class["3"]["presence"] == "from iteration 3"
    assert by_class["4"]["presence"] == "empty since iteration 2"
    assert by_class["5"]["presence"] == "always empty"
    assert by_class["5"]["kept"] == "–"


def test_the_table_of_moves_has_both_directions():
    rows = np.array([[0] * 10 + [1] * 10, [0] * 7 + [1] * 11 + [0] * 2])
    (_, _, table) = Page(html_page(build(rows, 2), Blank())).tables
    forth, back = rows_of(table)
    assert list(forth.values()) == ["1", "2", "3", "30.0 %", "2"]
    assert list(back.values()) == ["2", "1", "2", "20.0 %", "3"]
    assert len(Page(html_page(simulated(3, 3, still_from=1)[0], Blank())).tables) == 2


def test_hostile_texts_are_escaped(tmp_path):
    attack = '<script>alert("1")</script>&amp;"\'><img src=x onerror=y>'
    history, _ = simulated(3, 3)
    steps = tuple(replace(step, source=Path("<b>&x_data.star")) for step in history.iterations)
    hostile = replace(
        history,
        folder=Path(attack.replace("/", "_") + "\udcff"),
        kind=attack,
        program=attack,
        iterations=steps,
        verdict=Verdict(True, attack, attack, 0),
        messages=tuple(warning("one", text) for text in (attack, "$\\frac{1$", "\x1b[31m")),
    )
    path = tmp_path / "page.html"
    write_html(hostile, path)
    png(summary_sheet(hostile))
    page = Page(path.read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "b"}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all(attributes["src"].startswith("data:image/png") for tag, attributes in page.tags if tag == "img")
    # The verdict is the text itself; a warning ends with a full stop, the rule has words of ours before it.
    assert (page.text.count(attack), page.text.count(f"{attack}.")) == (1, 1)
    assert "<b>&x_data.star" in page.tables[0][1]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict(True, RULE, "It is still.", 0), "Converged"),
        (Verdict(False, RULE, "It moves.", 1), "Not converged It moves. About 1 more iteration needed."),
        (Verdict(False, RULE, "It moves.", None), "Not converged It moves. Rule:"),
        (Verdict(None, RULE, "One iteration.", None), "Too early to decide One iteration. Rule:"),
    ],
)
def test_the_verdict_is_reported(verdict, words):
    history, _ = simulated(3, 2, verdict=verdict, messages=(warning("one", "Class 3 collapsed"),))
    page = Page(html_page(history, Blank()))
    message = " ".join(" ".join(page.text).split())
    assert words in message
    assert RULE in message
    assert "Class 3 collapsed." in message

"""Figures of phase and overview pages: what is drawn is what was measured; imports are light."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic

from crystal.measure import chain
from crystal.present import figures, show, verdicts, views
from crystal.studies import phase, phase_figures
from crystal.texts import plain

SEEDS = {"both": "3", "bare": "3"}  # the persona named
TASKS_SHOWN = ("coin", "digit", "month")
OFF = 0.125
HOW = {"permutations": 99}
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
MINE = ("idea", "liquid", "nucleation", "settling", "overview")


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    """Two synthetic ladders: `both` read in both forms, `bare` in its native forms only."""
    where = tmp_path_factory.mktemp("root")
    distributions = synthetic.crystallizing(
        TASKS_SHOWN, checkpoints=("base", "sft-1", "sft-4", "sft", "dpo", "rlvr"), seed=1
    )
    synthetic.write_ladder(
        where,
        "both",
        distributions,
        other=distributions,
        invalid=OFF,
        seed="salient",
        demonstrated=["digit"],
    )
    synthetic.write_ladder(where, "bare", synthetic.crystallizing(TASKS_SHOWN, seed=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(where))
        yield where


@pytest.fixture(scope="module")
def readouts(root):
    return views.read_ladders(["both", "bare"])


def ladders(readouts, task: str, quantile: float = 0.9) -> list[phase.Series]:
    """Both ladders with their seeds."""
    found = []
    for one in phase.models("nucleation", readouts, [task]):
        base, who = one.at(task, "base"), SEEDS[one.name]
        seed = figures.seed_of(base, who, quantile)
        found.append(dataclasses.replace(one, answers=base, who=who, seed=seed))
    return found


def page(readouts, task: str) -> phase.Data:
    return phase.Data("liquid", task, HOW, ["base"], None, ladders(readouts, task), [])


def drawn(fig) -> bytes:
    """The figure as SVG, so that whatever fails when drawing fails here."""
    import io

    out = io.BytesIO()
    fig.savefig(out, format="svg")
    return out.getvalue()


def test_pairs_count_every_pair_once(readouts):
    frame = phase_figures.load_pairs(page(readouts, "digit"))
    for (_, pair), curve in frame.groupby(["ladder", "pair"]):
        assert (np.diff(curve["share"]) >= 0).all() and curve["share"].iloc[-1] == 1
        if pair.startswith("one persona"):  # the synthetic frames of a persona agree
            assert curve["share"].iloc[0] == 1
    assert drawn(phase_figures.plot_pairs(frame))


@pytest.mark.parametrize("task", TASKS_SHOWN)
def test_distributions_are_ordered_by_the_seed_and_sum_to_one(readouts, task):
    frame = figures.load_distributions(ladders(readouts, task, 0.8), task, ["sft", "dpo", "rlvr"])
    for (_, distribution), p in frame.groupby(["ladder", "distribution"]):
        assert p["probability"].sum() == pytest.approx(1)
        assert p["option"].tolist()[-2:] == list(views.LEFTOVER)
        if distribution == "seed":
            options = p.iloc[:-2]
            assert (np.diff(options["probability"]) <= 0).all()
            assert (
                options.loc[options["in_seed"], "probability"].sum()
                >= 0.8 * options["probability"].sum()
            )
            assert (np.diff(options["in_seed"].astype(int)) <= 0).all()
    assert drawn(figures.plot_distributions(frame))


def test_contexts_stand_in_the_order_of_their_mean_cosine(readouts):
    accounts = {
        ladder: found.account
        for ladder, mine in views.each_ladder(readouts)
        if (found := verdicts.survey(mine, **HOW)).account
    }
    frame = verdicts.load_contexts(accounts, "digit")
    for _, mine in views.each_ladder(frame):
        each = mine.drop_duplicates("context").sort_values("place")
        assert (np.diff(each["mean"]) <= 1e-12).all() and mine["this"].sum() == len(each)
        assert mine.groupby("context")["cosine"].mean().to_numpy() == pytest.approx(
            each.set_index("context")["mean"].sort_index().to_numpy()
        )
    assert drawn(verdicts.plot_contexts(frame))


def test_the_path_starts_at_the_base_without_forms_never_read(readouts):
    frame = figures.load_path(ladders(readouts, "digit"), "digit")
    assert set(frame.loc[frame["checkpoint"] == "base", "step"]) == {0}
    assert set(frame.loc[frame["ladder"] == "both", "step"]) == {0, 1, 4, 64}
    assert set(frame.loc[(frame["ladder"] == "bare") & (frame["step"] > 0), "form"]) == {"chat"}
    chat = frame[
        (frame["ladder"] == "both")
        & (frame["form"] == "chat")
        & (frame["quantity"] == "liquidity, bits")
    ]
    assert (np.diff(chat["value"]) <= 1e-9).all() and chat["value"].iloc[-1] < 0.2 * chat[
        "value"
    ].iloc[0]
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()
    assert drawn(figures.plot_path(frame))


def test_probmass_stands_beside_chance_and_the_seeds_own(readouts):
    frame = figures.load_probmass(ladders(readouts, "digit", 0.7), "digit", **HOW)
    assert frame["checkpoint"].tolist() == ["base", "sft", "dpo", "rlvr"] * 2
    assert (frame["own"] >= 0.7).all()
    assert (frame["chance"] * 10 == (frame["chance"] * 10).round()).all()
    tuned = frame[frame["checkpoint"] != "base"]
    assert tuned["value"].between(0, 1).all() and (tuned["lucky"] >= tuned["chance"]).all()
    assert drawn(figures.plot_probmass(frame))


def test_the_overview_draws_every_verdict_and_counts_it(readouts):
    found = {
        ladder: verdicts.survey(mine, **HOW).verdicts
        for ladder, mine in views.each_ladder(readouts)
    }
    frame = verdicts.load_verdicts(found)
    assert len(frame) == 2 * (len(TASKS_SHOWN) * 5 + 7)
    matrix, axes = verdicts.plot_matrix(frame), 2
    assert sum(len(ax.texts) for ax in matrix.axes) == len(frame) and len(matrix.axes) == axes
    assert drawn(matrix) and drawn(verdicts.plot_forest(frame))
    counts = verdicts.load_counts(found)
    names = [verdict.replace("-", "_") for verdict in chain.VERDICTS]
    assert (counts[names].sum(axis=1) == len(TASKS_SHOWN)).all()
    assert set(counts.loc[counts["ladder"] == "both", "held_out"]) == {2}
    assert set(counts.loc[counts["ladder"] == "bare", "held_out"]) == {0}
    table = verdicts.table(counts).splitlines()
    assert len(table) == 2 + len(counts) and len({line.count("|") for line in table}) == 1
    first = next(counts.itertuples())
    assert f"holds on {first.holds} of 3 tasks" in verdicts.sentence(first)
    undecided = verdicts.load_undecided(found)
    part = next(part for _, part in undecided.groupby(["ladder", "claim"], sort=False))
    assert list(part["tasks"].map(len)) == sorted(part["tasks"].map(len), reverse=True)
    assert len(verdicts.undecided_table(undecided).splitlines()) == 2 + len(undecided)
    assert not len(verdicts.load_undecided({"both": {"coin": []}}))
    held = [v for v in found["both"]["coin"] if v.verdict == "holds"]
    assert held and not len(verdicts.load_undecided({"both": {"coin": held}}))


def test_leftover_is_reported_as_stored(readouts):
    left = verdicts.load_leftover(readouts).set_index(["ladder", "checkpoint"])
    assert left.loc["both", "invalid"].to_numpy() == pytest.approx(OFF)
    assert left.loc["bare", ["invalid", "residual"]].to_numpy() == pytest.approx(0)
    assert len(left) == 8


def test_importing_the_light_path_loads_nothing_heavy():
    code = (
        "import sys; from crystal.measure import inference, quantities;"
        "from crystal.present import figures, show, verdicts, views;"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MINE)
def test_templates_are_clean_and_type_no_number(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert not re.search(r"\d", re.sub(r"\{[a-z:]+\}`[^`]*`|\$[^$]+\$", "", source)), source
        else:
            assert cell["outputs"] == [] and cell["execution_count"] is None
            for text in re.findall(r'"(?:[^"\\]|\\.)*"', source):  # words that a page will show
                typed = re.search(r"(?<![\w{])\d+(?:\.\d+)?(?![\w}])", text)
                assert not typed or "parameters" in cell["metadata"].get("tags", ()), text


def too_long(text: str, most: int, each: int = 25) -> list[str]:
    """The text, if it has more than `most` words, and its sentences of more than `each`.

    A number with its interval or a remark in parentheses is one word; a colon ends a sentence.
    """
    text = re.sub(r"\{[a-z]+\}`[^`]*`", "word", plain(text))
    bare = re.sub(r" (\[[^\]]*\]|\([^)]*\))", "", text)
    long = [s for s in re.split(r"[.;:?](?:\s|$)", bare) if len(s.split()) > each]
    return [*long, *([text] if len(bare.split()) > most else [])]


def test_words_are_counted():
    assert not too_long("One [0.1, 0.2] two (or three); four.", 3, 2)
    assert too_long("One two three. Four.", 9, 2) == ["One two three"]
    assert too_long("One. Two. Three.", 2, 2) == ["One. Two. Three."]


def captions(notebook: dict) -> list[str]:
    """The caption of every figure of a template; what code puts into it counts as one word."""
    found = []
    for cell in notebook["cells"] if notebook else ():
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.keyword) and node.arg == "caption":
                    parts = [n for n in ast.walk(node.value) if isinstance(n, ast.JoinedStr)]
                    shown = parts[0].values if parts else [node.value]
                    words = (n.value if isinstance(n, ast.Constant) else "word" for n in shown)
                    found.append("".join(words))
    return found


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_captions_of_templates_are_short(path):
    for caption in captions(json.loads(path.read_text(encoding="utf-8"))):
        assert not too_long(caption, 40)


KINDS = {
    "pairs": lambda read: phase_figures.plot_pairs(phase_figures.load_pairs(page(read, "digit"))),
    "distributions": lambda read: figures.plot_distributions(
        figures.load_distributions(ladders(read, "month"), "month", ["sft"])
    ),
    "path": lambda read: figures.plot_path(figures.load_path(ladders(read, "digit"), "digit")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_telephone_shows_a_figure_whole(readouts, kind):
    import matplotlib.style

    with matplotlib.style.context(NOTEBOOKS.parent / "book" / "crystal.mplstyle"):
        fig = KINDS[kind](readouts)
        svg = drawn(fig).decode()
    assert show.smallest(svg) * 350 / (72 * fig.get_figwidth()) >= show.READABLE


def test_the_smallest_text_counts_exponents():
    from matplotlib.figure import Figure

    def small(text: str, size: float) -> float:
        fig = Figure(figsize=(2, 2))
        fig.text(0.1, 0.5, text, fontsize=size)
        fig.text(0.1, 0.1, "large", fontsize=20)
        return show.smallest(drawn(fig).decode())

    assert small("word", 8) == pytest.approx(8)
    assert small("$10^{-5}$", 10) == pytest.approx(7)


def test_a_figure_for_a_dark_page_mirrors_greys_only():
    light = '<svg a="b"><path style="fill: #ffffff"/><path style="stroke: #0072b2"/><text/></svg>'
    dark = show.on_dark(light)
    assert "#0072b2" in dark and "#ffffff" not in dark and dark.startswith('<svg fill="#e6e6e6"')
    assert dark.count("#151515") == 1  # white becomes nearly the page's ground


def test_names_stand_on_lines_where_there_is_room():
    fig, ((ax,),) = figures.panels(1, 1, 2.0)
    for name, height in (("upper", 3), ("lower", 0), ("one in the middle", 1.5)):
        ax.plot([0, 1, 2], [height] * 3, label=name)
    assert figures.legend(fig).legends == [] and len(ax.texts) == 3
    fig.draw_without_rendering()
    for text in ax.texts:
        box = text.get_window_extent()
        way = {
            line.get_label(): abs(line.get_window_extent().y0 - (box.y0 + box.y1) / 2)
            for line in ax.lines
        }
        assert min(way, key=way.get) == text.get_text()
        assert ax.bbox.count_contains([box.min, box.max]) == 2


@pytest.mark.parametrize("heights", [(0, 0.01), (0, 0)])
def test_names_of_lines_that_are_close_stand_in_a_legend(heights):
    fig, ((ax,),) = figures.panels(1, 1, 2.0)
    for height in heights:
        ax.plot([0, 1], [height, height + 1], label=f"at {height} {len(ax.lines)}")
    assert len(figures.legend(fig).legends) == 1 and not ax.texts


def test_names_of_thresholds_stand_in_a_legend():
    fig, ((ax,),) = figures.panels(1, 1, 2.0)
    ax.plot([0, 1], [0, 1], "o", ls="", label="thresholds")
    assert len(figures.legend(fig).legends) == 1

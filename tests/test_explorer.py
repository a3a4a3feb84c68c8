"""The explorer: the numbers of the pages, packed small, shown by a browser from a file alone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, browser

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import CHAT, COMPLETION, PROMPTS
from crystal.ask.tasks import PHASE_TASKS, TASKS
from crystal.book import pages
from crystal.errors import CrystalError
from crystal.measure import evidence
from crystal.measure import quantities as ph
from crystal.present import explorer, figures, show, views
from crystal.studies import phase, real

REPOSITORY = Path(__file__).parent.parent
LADDERS = pages.values(pages.get("explorer"))["ladders"]
HOSTILE = "</script><img src=x onerror=window.harmed=1>\u2028'\"`${window.harmed=1}\\ \u202e"
without_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium: nobody looked at the page")


@pytest.fixture(scope="module")
def groups():
    return explorer.load(LADDERS)


@pytest.fixture(scope="module")
def numbers(groups):
    return explorer.load_numbers(groups)


@pytest.fixture(scope="module")
def pack(groups, numbers):
    return explorer.packed(groups, numbers)


def unpacked(pack: str) -> tuple[dict, np.ndarray]:
    """What the script makes of it: names, texts and numbers; cells in one line."""
    data = zlib.decompress(base64.b64decode(pack))
    end = 4 + int.from_bytes(data[:4], "little")
    return json.loads(data[4:end]), np.frombuffer(data[end:], np.uint8)


def row(numbers, **where):
    """The one row of that checkpoint, form and task."""
    for name, value in where.items():
        numbers = numbers[numbers[name] == value]
    assert len(numbers) == 1
    return numbers.iloc[0]


# -- numbers


def test_numbers_are_those_of_the_liquid_pages(numbers):
    ladders = ["nano-llama", "nano-olmo2"]
    readouts = views.read_ladders(ladders, tasks=PHASE_TASKS, checkpoints=["base"])
    for task in PHASE_TASKS:
        for ladder, mine in views.each_ladder(readouts):
            found = row(numbers, ladder=ladder, checkpoint="base", form=COMPLETION, task=task)
            distributions = views.compared(mine, task, "base").distributions("base")
            mean, inside = (
                ph.entropy_bits(distributions.mean(0)),
                ph.entropy_bits(distributions).mean(),
            )
            shown = found[["entropy_of_mean", "mean_entropy", "mutual_information"]]
            assert np.allclose(shown.astype(float), [mean, inside, mean - inside], atol=1e-12)


def test_distances_are_those_of_the_nucleation_pages(groups, numbers):
    asked = ["digit", "letter"]
    readouts = pd.concat([groups[0].readouts[task] for task in asked], ignore_index=True)
    readouts = readouts[readouts["ladder"] == "nano-llama"]
    for task in asked:
        one = phase.models("nucleation", readouts, [task])[-1]
        base, who = one.at(task, "base"), groups[0].seeds[task]
        seed = figures.seed_of(base, who)
        path = figures.load_path([dataclasses.replace(one, answers=base, who=who, seed=seed)], task)
        path = path[path["quantity"] == "TV to the seed"]
        for one in path.itertuples():
            found = row(
                numbers, ladder="nano-llama", checkpoint=one.checkpoint, form=one.form, task=task
            )
            # drawn is the estimate, in which a few personas' bias is corrected
            assert abs(found["tv_to_seed"] - one.value) < one.high - one.low + 1e-9


def test_numbers_are_those_of_the_real_base_page(groups, numbers):
    steps, checked = real.load_steps(real.read()), 0
    asked = len(groups[2].prompts)
    checkpoints = {
        (r.run, r.step): r.name
        for r in load_ladder(real.EXPERIMENT).checkpoints
        if r.stage == "sft"
    }
    for one in steps[steps["contexts"] == asked].itertuples():
        checkpoint = checkpoints[one.run, one.step] if one.step else "base"
        found = row(
            numbers, ladder=real.EXPERIMENT, checkpoint=checkpoint, form=CHAT, task=one.task
        )
        assert found["mutual_information"] == pytest.approx(one.bits, abs=1e-12)
        checked += 1
    assert checked > asked


def test_too_few_answers_have_no_number(numbers):
    few = numbers[numbers["answered"] < numbers["asked"].map(evidence.needed)]
    assert len(few) and few[list(explorer.NUMBERS)].isna().all(axis=None)
    rest = numbers.drop(few.index)
    assert rest[list(explorer.NUMBERS[:3])].notna().all(axis=None)


def test_checkpoints_asked_fewer_prompts_are_left_out(groups):
    shown = [checkpoint.name for checkpoint in groups[0].checkpoints]
    assert "dpo" in shown and "dpo-15" not in shown
    assert all(group.checkpoints[0].name == "base" for group in groups)
    assert all(places[0] == 0 for group in groups for places in group.series.values())


def test_a_checkpoint_read_in_one_form_has_no_number_in_the_other(groups):
    chat = dataclasses.replace(groups[0], read=groups[0].read - {("rlvr", COMPLETION)})
    numbers = explorer.load_numbers([chat])
    forms = numbers.loc[numbers["checkpoint"] == "rlvr", "form"]
    assert set(forms) == {CHAT} and len(forms) == len(PHASE_TASKS)
    mine = unpacked(explorer.packed([chat], numbers))[0]["groups"][0]["tasks"]["digit"]["forms"]
    assert mine[COMPLETION]["answered"][-1] is None and mine[CHAT]["answered"][-1] is not None


def test_an_experiment_on_several_ladders_is_refused():
    with pytest.raises(CrystalError, match="several ladders"):
        explorer.load(["kinetics"])


# -- data


def test_the_data_take_less_than_two_megabytes(pack):
    assert len(pack) < 2e6


def test_what_is_packed_is_what_was_read(groups, numbers, pack):
    head, cells = unpacked(pack)
    most, at, scale = explorer.COARSE[0], 0, 10**explorer.DECIMALS
    for group, described in zip(groups, head["groups"], strict=True):
        for task, mine in described["tasks"].items():
            shape = (len(group.checkpoints), len(group.prompts), len(TASKS[task].options) + 1)
            for form in head["forms"]:
                size = int(np.prod(shape))
                steps = cells[at : at + size].reshape(shape[0], shape[2], shape[1])
                steps = np.cumsum(np.cumsum(steps, 2, dtype=np.uint8), 0, dtype=np.uint8)
                steps = steps.swapaxes(1, 2)
                at += size
                last, name = steps[-1, :, :-1] / explorer.STEPS, group.checkpoints[-1].name
                bits = mine["forms"][form]["mutual_information"][-1]
                if (name, form) not in group.read:
                    assert bits is None and not last.any()
                    continue
                places = [names(group).index(label) for label in mine["prompts"]]
                table = views.unconditional(
                    group.readouts[task], name, task, form, prompts=group.prompts
                )[places]
                mass = table.sum(1, keepdims=True)
                assert (last.any(1) == evidence.answers(mass[:, 0])).all()
                distribution = np.where(
                    last.any(1, keepdims=True), table / np.maximum(mass, ph.TINY), 0
                )
                assert np.abs(last**2 - distribution).max() <= most + 1e-9
                found = row(numbers, ladder=group.name, checkpoint=name, form=form, task=task)
                known = bits is not None
                assert known == np.isfinite(found["mutual_information"])
                assert not known or abs(bits - found["mutual_information"]) <= 0.5 / scale + 1e-12
    assert at == len(cells)


def names(group) -> list[str]:
    return [f"{prompt.cluster}, {prompt.wording}" for prompt in group.prompts]


def test_prompts_stand_with_their_own_text(groups, pack):
    mine = unpacked(pack)[0]["groups"][0]["tasks"]["digit"]
    asked = {f"{p.cluster}, {p.wording}": p.text(TASKS["digit"], CHAT) for p in PROMPTS}
    assert dict(zip(mine["prompts"], mine["forms"][CHAT]["texts"], strict=True)) == asked
    seed = PROMPTS[5 * int(groups[0].seeds["digit"])].cluster
    assert seed in mine["prompts"][int(mine["seed"]["row"])]


def test_the_vendored_script_is_the_one_named():
    folder = REPOSITORY / "book/_vendor/vega"
    found = hashlib.sha256((folder / "vega.min.js").read_bytes()).hexdigest()
    assert found in (folder / "README").read_text()


# -- in a browser


@pytest.fixture(scope="module")
def looked(groups, numbers, tmp_path_factory):
    """A page of one series with a hostile title, alone in a file, in a browser without network."""
    if not CHROMIUM:
        pytest.skip("no chromium")
    folder, told = tmp_path_factory.mktemp("page"), []
    places = [*range(len(groups[0].checkpoints))]
    alone = dataclasses.replace(groups[0], series={HOSTILE: places, "backwards": places[::-1]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(show, "_display", lambda myst, seen: told.append(seen))
        show.begin("explorer", ladders=LADDERS)
        explorer.embed([alone], numbers)
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content=width=device-width>"
    (folder / "page.html").write_text(head + told[0], encoding="utf-8")
    with browser(folder / "profile") as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.open((folder / "page.html").as_uri())
        page.run(f"new Promise(done => setInterval(() => !{SHOWN}.hidden && done(), 50))")
        yield page


WATCH = "window.failures = []; onerror = onunhandledrejection = e => failures.push(String(e));"
SHOWN = 'document.querySelector(".explorer .shown")'
SET = """(given => {
  const form = document.querySelector(".explorer form");
  for (const [name, value] of Object.entries(given)) {
    form[name].value = value;
    form[name].dispatchEvent(new Event(name === "checkpoint" ? "input" : "change"));
  }
  return new Promise(done => setTimeout(done, 300));
})"""


def shown(page, name: str) -> str:
    return page.run(f"document.querySelector('[data-number={name}]').textContent")


def test_the_browser_shows_the_numbers_computed_here(looked, groups, numbers):
    for task, place in (("digit", 0), ("hundred", 5), ("suit", len(groups[0].checkpoints) - 1)):
        looked.run(f"{SET}({json.dumps({'task': task, 'form': CHAT, 'checkpoint': place})})")
        checkpoint = groups[0].checkpoints[place].name
        found = row(numbers, ladder="nano-llama", checkpoint=checkpoint, form=CHAT, task=task)
        for name in explorer.NUMBERS:
            text = shown(looked, name).removesuffix(" bits")
            assert float(text) == pytest.approx(found[name], abs=0.5e-3 + explorer.COARSE[1])
        assert shown(looked, "answered") == f"{found['answered']} of {found['asked']}"


def test_options_and_steps_keep_their_order_from_task_to_task(looked, groups):
    domain = "document.querySelector('div.explorer').views.{}.scale('x').domain()"
    for task in ("even", "d20", "prime", "digit"):
        looked.run(f"{SET}({{task: '{task}', checkpoint: 3}})")
        for chart in ("heat", "bars"):
            assert looked.run(domain.format(chart)) == list(TASKS[task].options)
    steps = [
        str(checkpoint.step) for checkpoint in groups[0].checkpoints if checkpoint.stage == "sft"
    ]
    for series, way in (("0/1", -1), ("0/0", 1)):
        looked.run(f"{SET}({{series: '{series}'}})")
        assert looked.run(domain.format("path"))[::way][1 : 1 + len(steps)] == steps


def test_the_heat_map_is_drawn_and_follows_the_slider(looked):
    picture = "document.querySelector('[data-chart=heat] canvas').toDataURL()"
    looked.run(f"{SET}({{task: 'digit', checkpoint: 0}})")
    before = looked.run(picture)
    looked.run(f"{SET}({{checkpoint: 11}})")
    assert looked.run(picture) != before
    looked.run(f"{SET}({{checkpoint: 0}})")
    assert looked.run(picture) == before


def test_a_prompt_is_chosen_by_key_and_by_pointer(looked):
    text = "document.querySelector('[data-text=prompt]').textContent"
    chosen = "document.querySelector('select[name=prompt]')"
    looked.run(f"{chosen}.value = '7'; {chosen}.dispatchEvent(new Event('change'))")
    before = looked.run(text)
    canvas = "document.querySelector('[data-chart=heat] canvas')"
    looked.run(f"{canvas}.scrollIntoView()")
    box = looked.run(f"(b => ({{x: b.x + 40, y: b.y + 300}}))({canvas}.getBoundingClientRect())")
    looked.call("Input.dispatchMouseEvent", type="mouseMoved", **box)
    looked.run("new Promise(done => setTimeout(done, 300))")
    assert looked.run(f"Number({chosen}.value)") > 40 and looked.run(text) != before
    assert looked.run(text) in looked.run("document.querySelector('.tip').textContent")


def test_a_hostile_title_is_shown_as_it_is(looked):
    series = "document.querySelector('select[name=series]')"
    assert looked.run(f"{series}.selectedOptions[0].textContent") == HOSTILE
    assert looked.run("window.harmed") is None
    assert looked.run("document.querySelectorAll('.explorer img').length") == 0


def test_it_loads_nothing_and_fails_nowhere(looked):
    assert [url for url in looked.requests if not url.startswith(("file:", "blob:"))] == []
    assert len([url for url in looked.requests if url.startswith("file:")]) == 1
    assert looked.run("failures") == []


def test_every_control_has_a_label(looked):
    controls = "document.querySelectorAll('.explorer select, .explorer input')"
    found = looked.run(f"[...{controls}].map(one => one.labels.length)")
    assert len(found) == 5 and set(found) == {1}


def test_a_phone_scrolls_in_one_direction(looked):
    how = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    looked.call("Emulation.setDeviceMetricsOverride", **how)
    looked.run("new Promise(done => setTimeout(done, 500))")
    assert looked.run("document.documentElement.scrollWidth") <= 390
    looked.call("Emulation.clearDeviceMetricsOverride")


def test_a_step_of_the_slider_takes_less_than_a_frame(looked, groups):
    looked.run(f"{SET}({{task: 'hundred', checkpoint: 0}})")
    taken = looked.run("""(async () => {
      const slider = document.querySelector("#explorer-step");
      const raf = requestAnimationFrame, taken = [];
      window.requestAnimationFrame = draw => raf(now => {
        const began = performance.now();
        draw(now);
        taken.push(performance.now() - began);
      });
      for (let step = 0; step < 60; step++) {
        slider.value = step % (Number(slider.max) + 1);
        slider.dispatchEvent(new Event("input"));
        await new Promise(done => raf(done));
      }
      window.requestAnimationFrame = raf;
      return taken;
    })()""")
    assert len(taken) > 50 and np.median(taken) < 1000 / 60

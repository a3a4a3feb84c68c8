// The explorer's hands: unpacks what crystal.present.explorer packed, and shows what is chosen.
// Every number shown was computed there. Texts reach the page as text, never as HTML.
(() => {
  "use strict";
  const root = document.querySelector("div.explorer");
  const fields = root.querySelector("form").elements;
  const pick = root.querySelector("select[name=prompt]");
  const part = (name, value) => root.querySelector(`[data-${name}="${value}"]`);
  const FORMS = { completion: "raw text", chat: "chat" };
  const STAGES = { base: "base", sft: "SFT", dpo: "DPO", rlvr: "RLVR" };
  const BITS = ["mutual_information", "entropy_of_mean", "mean_entropy"];
  const tip = root.querySelector(".tip"), views = root.views = {};
  let data, colours, now, waiting;

  async function unpacked(text) {
    const letters = atob(text), packed = new Uint8Array(letters.length);
    for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const found = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    let at = 4 + length;
    for (const group of found.groups) {
      for (const [task, mine] of Object.entries(group.tasks)) {
        const size = mine.prompts.length * (found.tasks[task].options.length + 1);
        for (const form of found.forms) {
          mine.forms[form].tables = group.checkpoints.map(() => bytes.subarray(at, (at += size)));
        }
      }
    }
    return found;
  }

  // The cells of every checkpoint: sums of differences, taken once, when they are first shown.
  function summed(mine, rows) {
    if (mine.cells) return;
    let before = new Uint8Array(mine.tables[0].length);
    for (const table of mine.tables) {
      for (let row = 0, step = 0, i = 0; i < table.length; i++, row++) {
        if (row === rows) row = step = 0;
        step += table[i];
        table[i] = step + before[i];
      }
      before = table;
    }
    mine.cells = mine.tables;
  }

  function fill(select, names, kept) {
    select.replaceChildren(...names.map(([value, text]) => new Option(text, value)));
    if (names.some(([value]) => value === kept)) select.value = kept;
  }

  const stage = (checkpoint) => STAGES[checkpoint.stage] || checkpoint.stage;
  const short = (checkpoint) => checkpoint.stage === "base" ? "base"
    : checkpoint.stage === "sft" ? String(checkpoint.step) : `${stage(checkpoint)} ${checkpoint.step}`;
  const long = (checkpoint) => checkpoint.stage === "base" ? "base, before post-training"
    : `${stage(checkpoint)}, step ${checkpoint.step}`;
  const number = (x, digits) => x === null ? "–" : x.toFixed(digits);

  // What changes with series, task and form.
  function choose() {
    const [i, j] = fields.series.value.split("/").map(Number), group = data.groups[i];
    const series = group.series[j], task = group.tasks[fields.task.value];
    const read = (form) => series.checkpoints.filter((at) => task.forms[form].answered[at] !== null);
    const forms = data.forms.filter((form) => read(form).length);
    fill(fields.form, forms.map((form) => [form, FORMS[form] || form]), fields.form.value);
    const mine = task.forms[fields.form.value], options = data.tasks[fields.task.value].options;
    const row = now && now.rows === task.prompts.length ? Number(pick.value) : 0;
    const places = read(fields.form.value), checkpoints = places.map((place) => group.checkpoints[place]);
    const rows = task.prompts.length;
    summed(mine, rows);
    now = { places, checkpoints, rows, task, mine, options };
    now.at = Math.min(Number(fields.checkpoint.value), now.checkpoints.length - 1);
    fields.checkpoint.max = now.checkpoints.length - 1;
    fields.checkpoint.value = now.at;
    fill(pick, task.prompts.map((name, i) => [String(i), name]), String(row));
    now.most = Math.max(1, ...places.map((place) => mine.cells[place]
      .subarray(0, rows * options.length).reduce((most, step) => step > most ? step : most, 0)));
    part("number", "most").textContent = number((now.most / data.steps) ** 2, 2);
    now.top = Math.max(0, ...places.flatMap((place) => mine.means[place] || []),
      ...(task.seed ? task.seed.distribution : [])) / 10 ** data.decimals || 1;
    for (const one of root.querySelectorAll("[data-seeded]")) one.hidden = !task.seed;
    const path = places.map((place, at) => ({
      at, label: short(checkpoints[at]),
      ...Object.fromEntries(BITS.map((name) => [name, mine[name][place]])),
    }));
    const bits = path.flatMap((one) => BITS.map((name) => one[name] || 0));
    views.path.signal("top", Math.max(0.1, ...bits)).data("path", path);
    views.heat.signal("rows", rows).data("seed", task.seed ? [task.seed.row] : [])
      .data("options", options.map((name, at) => ({ name, at })));
    views.heat.signal("row", row);
    draw();
  }

  // What changes with the checkpoint.
  function draw() {
    waiting = 0;
    now.at = Number(fields.checkpoint.value);
    const checkpoint = now.places[now.at], named = long(now.checkpoints[now.at]);
    fields.at.value = named;
    fields.checkpoint.setAttribute("aria-valuetext", named);
    for (const name of BITS) {
      const bits = now.mine[name][checkpoint];
      part("number", name).textContent = bits === null ? "–" : `${number(bits, 3)} bits`;
    }
    part("number", "tv_to_seed").textContent = number(now.mine.tv_to_seed[checkpoint], 3);
    part("number", "answered").textContent = `${now.mine.answered[checkpoint]} of ${now.rows}`;
    now.cells = now.mine.cells[checkpoint];
    now.mean = now.mine.means[checkpoint];
    views.heat.data("picture", [{ image: painted() }]).run();
    views.path.signal("at", short(now.checkpoints[now.at])).run();
    point();
  }

  // The cells as a picture, a pixel each.
  function painted() {
    const wide = now.options.length, tall = now.rows;
    const picture = document.createElement("canvas");
    Object.assign(picture, { width: wide, height: tall });
    const pen = picture.getContext("2d");
    const image = pen.createImageData(wide, tall), pixels = new Uint32Array(image.data.buffer);
    for (let row = 0, i = 0; row < tall; row++) {
      const steps = own(row), said = steps.some((step) => step);
      for (const step of steps) {
        pixels[i++] = said ? colours[Math.round(step / now.most * 255)] : 0x50808080;
      }
    }
    pen.putImageData(image, 0, 0);
    return picture;
  }

  const own = (row) => now.options.map((_, k) => now.cells[k * now.rows + row]);

  // What changes with the prompt.
  function point() {
    const row = Number(pick.value), steps = own(row), said = steps.some((step) => step);
    const scale = 10 ** data.decimals, seed = now.task.seed;
    const distribution = steps.map((step) => (step / data.steps) ** 2);
    views.bars.signal("top", Math.max(now.top, ...distribution));
    views.bars.data("options", now.options.map((name, k) => ({
      name, at: k, mean: now.mean ? now.mean[k] / scale : 0,
      seed: seed ? seed.distribution[k] / scale : null, own: said ? distribution[k] : null,
    }))).run();
    const best = distribution.indexOf(Math.max(...distribution)), mass = now.cells[steps.length * now.rows + row];
    part("text", "prompt").textContent = now.mine.texts[row];
    part("text", "answer").textContent = said
      ? `Likeliest answer: ${now.options[best]}, with probability ${number(distribution[best], 2)} among `
        + `the options; ${mass} % of the mass is on an option.`
      : `Not answered: ${mass} % of the mass is on an option.`;
    const texts = ["prompt", "answer"].map((name) => part("text", name).textContent);
    tip.textContent = texts.join("\n\n");
  }

  // The same text at the pointer as below the charts.
  function hover(event) {
    tip.hidden = event.type === "pointerleave" || event.pointerType === "touch";
    const right = event.clientX > innerWidth / 2;
    Object.assign(tip.style, { top: `${event.clientY + 16}px`,
      left: right ? "" : `${event.clientX + 16}px`,
      right: right ? `${document.documentElement.clientWidth - event.clientX + 16}px` : "" });
  }

  function inked() {
    for (const view of Object.values(views)) view.signal("ink", getComputedStyle(root).color).run();
  }

  function show(name) {
    const box = part("chart", name);
    const view = new vega.View(vega.parse(data.charts[name]), { renderer: "canvas", hover: false });
    views[name] = view.initialize(box).width(box.clientWidth);
    new ResizeObserver(() => {
      if (view.width() !== box.clientWidth && box.clientWidth) view.width(box.clientWidth).run();
    }).observe(box);
  }

  async function begin() {
    data = await unpacked(window.crystalExplorer);
    const scheme = vega.scheme("cividis");
    colours = Uint32Array.from({ length: 256 }, (_, i) => {
      const [r, g, b] = scheme(i / 255).match(/\d+/g).map(Number);
      return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
    });
    fill(fields.series, data.groups.flatMap((group, i) => group.series.map(
      (one, j) => [`${i}/${j}`, one.title])));
    fill(fields.task, Object.entries(data.tasks).map(([name, one]) =>
      [name, one.ask.replace(/^pick an? (random )?/, "")]), "digit");
    fill(fields.form, data.forms.map((form) => [form, FORMS[form] || form]), "chat");
    root.querySelector("form").hidden = root.querySelector(".shown").hidden = false;
    ["heat", "bars", "path"].forEach(show);
    choose();
    inked();
    for (const name of ["series", "task", "form"]) fields[name].addEventListener("change", choose);
    fields.checkpoint.addEventListener("input", () => {
      waiting = waiting || requestAnimationFrame(draw);
    });
    pick.addEventListener("change", () => views.heat.signal("row", Number(pick.value)).run());
    views.heat.addSignalListener("row", (_, row) => {
      pick.value = row;
      point();
    });
    for (const type of ["pointermove", "pointerleave"]) {
      part("chart", "heat").addEventListener(type, hover);
    }
    new MutationObserver(inked).observe(document.documentElement, { attributes: true });
  }

  begin().catch((error) => {
    root.querySelector(".failed").hidden = false;
    throw error;
  });
})();

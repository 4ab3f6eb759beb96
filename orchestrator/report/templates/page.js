"use strict";
/* A report's filters, sorting and charts; where it is served, what is going on and a box for SQL.
   Names are only ever set as text: nothing here writes HTML. */
(() => {
  const COLOURS = 7;
  const DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [1, 3]];
  const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left", "triangle-right"];
  const LINES = { heatmap: "line", bars: "name", differences: "pair" };  // charts with a line for each of these
  const BORDERS = ["solid", "dashed", "dotted", "double"];
  const MOST_PANELS = 24;
  const MOST_DIFFERENCES = 40;
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  let data, chosen, rows, entriesOf;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function read(text) {
    data = JSON.parse(text);
    rows = data.rows;
    entriesOf = rows.map(() => []);
    for (const entry of data.entries) {
      const found = {};
      data.fields.forEach((name, i) => { found[name] = entry[i]; });
      entriesOf[found.row].push(found);
    }
  }

  /* -- filters: chosen has a set of values for each key that is not shown whole ------------------------ */

  const isShown = (of) =>
    Object.entries(chosen).every(([key, values]) => of[key] === undefined || values.has(of[key]));

  function beginFilters(kept) {
    chosen = {};
    for (const filter of all("details.filter")) {
      const key = filter.dataset.key;
      const boxes = all("input", filter);
      if (kept[key]) {
        for (const box of boxes) box.checked = kept[key].has(box.value) || !kept.known[key].has(box.value);
      }
      const look = () => {
        const on = boxes.filter((box) => box.checked).map((box) => box.value);
        if (on.length === boxes.length) delete chosen[key];
        else chosen[key] = new Set(on);
        filter.querySelector(".chosen").textContent =
          on.length === boxes.length ? `all ${boxes.length}` : on.length === 1 ? on[0] : `${on.length} of ${boxes.length}`;
      };
      const set = (checked) => { for (const box of boxes) box.checked = checked; look(); show(); };
      filter.querySelector("fieldset").addEventListener("change", () => { look(); show(); });
      filter.querySelector(".all").addEventListener("click", () => set(true));
      filter.querySelector(".none").addEventListener("click", () => set(false));
      filter.addEventListener("toggle", () => {
        if (filter.open) for (const other of all("details.filter[open]")) if (other !== filter) other.open = false;
      });
      filter.addEventListener("keydown", (event) => {
        if (event.key === "Escape") { filter.open = false; filter.querySelector("summary").focus(); }
      });
      look();
    }
    byId("reset").addEventListener("click", () => {
      for (const box of all("details.filter input")) box.checked = true;
      for (const fieldset of all("details.filter fieldset")) fieldset.dispatchEvent(new Event("change"));
    });
    byId("lines").addEventListener("change", show);
  }

  document.addEventListener("click", (event) => {
    for (const open of all("details.filter[open]")) if (!open.contains(event.target)) open.open = false;
  });

  function known() {
    const found = { known: {} };
    for (const filter of all("details.filter")) {
      const key = filter.dataset.key;
      found.known[key] = new Set(all("input", filter).map((box) => box.value));
      if (chosen[key]) found[key] = chosen[key];
    }
    return found;
  }

  function show() {
    let shown = 0, there = 0;
    for (const row of all("tr.filtered")) {
      row.hidden = !isShown(row.dataset);
      if (row.closest("table.robustness")) { there += 1; shown += row.hidden ? 0 : 1; }
    }
    for (const table of all("table")) {
      const own = all("tr.filtered", table);
      if (own.length && table.closest(".scroll")) table.closest(".scroll").hidden = own.every((row) => row.hidden);
    }
    byId("shown").textContent = shown === there ? "" : `${shown} of ${there} rows shown`;
    for (const group of all(".filtered-group")) group.hidden = !isShown(group.dataset);
    drawCurves();
    drawHeatmaps();
    drawVisible();
    drawDifferences();
    drawTransfers();
    drawClasses();
    drawTraining();
  }

  /* -- sorting ----------------------------------------------------------------------------------------- */

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
  };

  function sort(button) {
    const head = button.closest("th"), table = button.closest("table");
    const column = [...head.parentElement.cells].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const known = [...body.rows].map((row) => [valueOf(row, column), row]);
    const numeric = known.every(([value]) => value === "" || !Number.isNaN(Number(value.replace(/[%,]/g, ""))));
    known.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // holes last, either way
      const order = numeric
        ? Number(a.replace(/[%,]/g, "")) - Number(b.replace(/[%,]/g, ""))
        : a.localeCompare(b, undefined, { numeric: true });
      return down ? -order : order;
    });
    body.append(...known.map(([, row]) => row));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (button) sort(button);
  });

  /* -- charts ------------------------------------------------------------------------------------------ */

  const watcher = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) target.draw();
  }, { rootMargin: "400px" });

  /* Draws when it comes near: a report may have a hundred charts. */
  function chart(name, points, description, more = {}) {
    const place = element("div", { class: "chart", role: "img", "aria-label": description });
    place.draw = () => {
      watcher.unobserve(place);
      if (place.done) return place.done;
      const spec = structuredClone(data.specs[name]);
      spec.datasets = { points };
      if (more.ticks) Object.assign(spec.layer[0].encoding.x, axis(spec.layer[0].encoding.x.axis, more.ticks, more.from ?? 0));
      // Room for the words behind the longest bar.
      if (name === "bars") spec.layer[0].encoding.x.scale = { domain: [0, 1.4 * Math.max(...points.map((one) => one.seconds))] };
      if (LINES[name]) setLabels(spec, points, LINES[name], place.clientWidth || 340);
      place.drawn = place.clientWidth;
      place.done = vegaEmbed(place, spec, { ast: true, renderer: "svg", actions: false, tooltip: { theme: "custom" } })
        .then((result) => { place.view = result.view; });
      return place.done;
    };
    watcher.observe(place);
    if (LINES[name]) place.again = () => { place.view?.finalize(); place.done = undefined; watcher.observe(place); };
    return place;
  }

  /* Lines of labels are of the width that a chart was drawn at. */
  let resized;
  window.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => {
      for (const place of all(".chart")) if (place.again && place.view && place.clientWidth !== place.drawn) place.again();
    }, 200);
  });

  /* A text in lines of so many characters, at spaces where there are any: nothing of it is left out. */
  function broken(text, most) {
    const lines = [];
    for (const word of text.split(" ")) {
      const last = lines[lines.length - 1];
      if (last !== undefined && last.length + 1 + word.length <= most) lines[lines.length - 1] = `${last} ${word}`;
      else for (let i = 0; i < Math.max(1, word.length); i += most) lines.push(word.slice(i, i + most));
    }
    return lines;
  }

  const CHARACTER = 6.4, LEADING = 13;  // pixels that a label's character and line take

  /* Labels of a chart with a line for each name: whole, so that no two of them look alike. */
  function setLabels(spec, points, field, width) {
    const names = [...new Set(points.map((one) => one[field]))];
    const most = Math.max(14, Math.min(44, Math.floor((0.42 * width) / CHARACTER)));
    const left = new Map(names.map((name) => [name, broken(name, most)]));
    const lines = Math.max(1, ...[...left.values()].map((one) => one.length));
    spec.height = Math.max(24, 8 + LEADING * lines) * Math.max(1, names.length);
    for (const layer of spec.layer) if (layer.encoding.y?.field === field) layer.encoding.y.axis = labelled(layer.encoding.y.axis, left);
    const columns = [...new Set(points.map((one) => one.column))].filter((one) => one !== undefined);
    if (!columns.length) return;
    // Upright where there is no room for words across.
    const taken = CHARACTER * Math.max(...[...left.values()].flat().map((line) => line.length));
    const room = Math.floor((width - taken - 20) / columns.length / CHARACTER);
    const across = columns.every((one) => one.split(" ").every((word) => word.length <= room));
    const fitting = Math.max(1, Math.floor((room * CHARACTER) / LEADING) - 1);
    const longest = Math.max(...columns.map((one) => one.length));
    const below = new Map(columns.map((one) => [one, broken(one, across ? room : Math.max(28, Math.ceil(longest / fitting)))]));
    const turned = across ? { labelAngle: 0 } : { labelAngle: -90, labelAlign: "right", labelBaseline: "middle" };
    for (const layer of spec.layer) layer.encoding.x.axis = { ...labelled(layer.encoding.x.axis, below, !across), ...turned };
  }

  /* An axis with labels of several lines; Vega puts the first of them at the tick, unless they are `centred`. */
  function labelled(known, lines, centred = true) {
    const most = Math.max(1, ...[...lines.values()].map((one) => one.length));
    if (centred) {
      lines = new Map([...lines].map(([name, own]) => [name, [...Array(Math.floor((most - own.length) / 2)).fill("\u00a0"), ...own]]));
      known = { ...known, labelOffset: (-LEADING * (most - 1)) / 2 };
    }
    const text = JSON.stringify(Object.fromEntries(lines)).replace(/[\u2028\u2029]/g, (one) => `\\u${one.charCodeAt(0).toString(16)}`);
    return { ...known, labelExpr: `(${text})[datum.value]`, labelLineHeight: LEADING };
  }

  /* Ticks at what was asked for, in the words of the grid. */
  function axis(known, ticks, from) {
    const values = [...ticks.keys()].sort((a, b) => a - b);
    const names = Object.fromEntries([...ticks].map(([value, text]) => [JSON.stringify(value), text]));
    return {
      scale: { domain: [Math.min(values[0], from), values[values.length - 1] || 1], nice: false },
      axis: { ...known, values, labelOverlap: true, labelExpr: `(${JSON.stringify(names)})[datum.value]` },
    };
  }

  function fill(id, panels) {
    const place = byId(id);
    for (const old of all(".chart", place)) { watcher.unobserve(old); if (old.view) old.view.finalize(); }
    place.replaceChildren(...panels);
  }

  const panel = (title, ...content) =>
    element("figure", { class: "panel" }, element("figcaption", {}, ...(Array.isArray(title) ? title : [title])), ...content);

  const drawAll = () => Promise.all(all(".chart").map((place) => place.draw()));

  function group(items, key) {
    const found = new Map();
    for (const item of items) {
      const name = key(item);
      if (!found.has(name)) found.set(name, []);
      found.get(name).push(item);
    }
    return found;
  }

  const place = (key, value) => Math.max(0, (data.values[key] || []).indexOf(value));
  const colour = (i) => `var(--s${i % COLOURS})`;

  function shownText(entry) {
    if (entry.value === null) return entry.mark;
    if (entry.sd !== null) return `${entry.value.toFixed(1)} ± ${entry.sd.toFixed(1)}%`;
    return entry.low === null ? `${entry.value.toFixed(1)}%`
      : `${entry.value.toFixed(1)}% (${entry.low.toFixed(1)} to ${entry.high.toFixed(1)})`;
  }

  const severalSweeps = () => (data.values.sweep || []).length > 1;
  const modelText = (row) => severalSweeps() ? `${row.model} (${row.sweep})` : row.model;

  function points(row, style) {
    const number = rows.indexOf(row), steps = data.steps[number];
    const line = `${row.victim}\n${row.attack}`;
    const last = Math.max(...entriesOf[number].map((entry) => entry.epsilon));
    // What is left behind the last step stays so.
    const falls = steps ? [...steps, [last, ...steps[steps.length - 1].slice(1)]] : [];
    const drawn = falls.map(([epsilon, value, low, high]) => ({ epsilon, value, low, high, step: true, line, ...style }));
    return [...drawn, ...entriesOf[number].map((entry) => ({
      step: false, stepped: steps !== undefined, epsilon: entry.epsilon, text: entry.text, value: entry.value, low: entry.low, high: entry.high, n: entry.n,
      shown: shownText(entry), doubt: entry.doubt || "none", name: modelText(row), defence: row.defence,
      attack: row.attack, line, ...style, fill: entry.doubt ? "var(--panel)" : style.colour,
    }))];
  }

  /* Steps are between what was asked for. */
  const ticksOf = (values) => new Map(values.filter((one) => !one.step).map((one) => [one.epsilon, one.text]));

  /* What a line for each model, or for each attack, looks like. */
  function styleOf(row, key = "model") {
    const number = place(key, row[key]);
    const second = key === "model" ? place("defence", row.defence) + (severalSweeps() ? place("sweep", row.sweep) : 0) : 0;
    return {
      colour: colour(number), dash: DASHES[second % DASHES.length], border: BORDERS[second % BORDERS.length],
      shape: SHAPES[number % SHAPES.length],
    };
  }

  /* Accuracy, SSIM and L2 beside each other: a panel for each dataset, norm and attack. */
  function drawVisible() {
    if (!byId("visible-panels")) return;
    const shown = data.visible.filter(([number]) => isShown(rows[number]));
    const panels = group(shown, ([number]) => JSON.stringify([rows[number].dataset, rows[number].norm, rows[number].attack]));
    const made = [];
    for (const [key, own] of panels) {
      if (made.length === MOST_PANELS) break;
      const title = JSON.parse(key).join(", ");
      const drawn = [...new Set(own.map(([number]) => number))];
      const curves = drawn.flatMap((number) => points(rows[number], styleOf(rows[number])));
      const ticks = ticksOf(curves);
      const of = (at) => own.filter((one) => one[at] !== null).map((one) => ({
        epsilon: one[1], text: one[2], accuracy: one[3], value: one[at], n: one[7], shown: one[at].toPrecision(3),
        name: rows[one[0]].victim, line: rows[one[0]].victim, ...styleOf(rows[one[0]]),
      }));
      const names = element("div", { class: "legend" }, ...drawn.map((number) => {
        const { colour: ink, border } = styleOf(rows[number]);
        return element("span", {}, element("i", { style: `border-top-color:${ink};border-top-style:${border}` }), rows[number].victim);
      }));
      const ssim = of(5);
      made.push(panel(title, names, element("div", { class: "beside" },
        chart("curves", curves, `Robust accuracy against epsilon: ${title}`, { ticks }),
        ssim.length ? chart("ssim", ssim, `SSIM against epsilon: ${title}`, { ticks })
          : element("p", { class: "note" }, "no SSIM of images below 11 pixels"),
        chart("l2", of(6), `L2 against epsilon: ${title}`, { ticks }))));
    }
    fill("visible-panels", made);
    byId("visible-more").textContent = panels.size > MOST_PANELS
      ? `${MOST_PANELS} of ${panels.size} panels: filters bring up the others.`
      : shown.length ? "" : "Nothing is left to draw.";
  }

  function drawCurves() {
    const how = byId("lines").value;
    const shown = rows.filter((row) => isShown(row) && !row.targeted && (how !== "worst" || row.main));
    const panels = group(shown, (row) => JSON.stringify([row.dataset, row.norm,
      how === "models" ? row.attack : how === "attacks" ? row.victim : ""]));
    const legend = new Map();
    const made = [];
    for (const [key, own] of panels) {
      if (made.length === MOST_PANELS) break;
      const values = own.filter((row) => entriesOf[rows.indexOf(row)].length).flatMap((row) => {
        const byModel = how !== "attacks";
        const style = styleOf(row, byModel ? "model" : "attack");
        legend.set(byModel ? row.victim : row.attack, [style.colour, style.border]);
        return points(row, style);
      });
      if (!values.length) continue;  // of these nothing was asked for
      const [dataset, norm, third] = JSON.parse(key);
      const title = [dataset, norm, third].filter(Boolean).join(", ");
      made.push(panel(title, chart("curves", values,
        `Robust accuracy against epsilon: ${title}; ${own.length} lines. The tables below have every number.`,
        { ticks: ticksOf(values) })));
    }
    fill("curve-panels", made);
    byId("legend").replaceChildren(...[...legend].map(([name, [ink, border]]) =>
      element("span", {}, element("i", { style: `border-top-color:${ink};border-top-style:${border}` }), name)));
    byId("curves-more").textContent = panels.size > MOST_PANELS
      ? `${MOST_PANELS} of ${panels.size} panels: filters bring up the others.`
      : shown.length ? "" : "Nothing is left to draw: no model has all of what is chosen.";
  }

  /* A panel for each dataset and norm, with the epsilon that it shows to be chosen. */
  const picked = {};

  function byEpsilon(id, groups, draw) {
    const made = [];
    for (const [key, own] of groups) {
      if (made.length === MOST_PANELS) break;
      const title = JSON.parse(key).join(", ");
      const texts = [...new Set(own.map((one) => one.text))];
      const name = `${id} ${key}`;
      if (!texts.includes(picked[name])) picked[name] = texts[Math.floor((texts.length - 1) / 2)];
      const select = element("select", { "aria-label": `Epsilon of ${title}` },
        ...texts.map((text) => element("option", text === picked[name] ? { value: text, selected: "" } : { value: text }, text)));
      const holder = element("div");
      const redraw = () => {
        for (const old of all(".chart", holder)) { watcher.unobserve(old); if (old.view) old.view.finalize(); }
        holder.replaceChildren(draw(own.filter((one) => one.text === picked[name]), title, picked[name]));
      };
      select.addEventListener("change", () => { picked[name] = select.value; redraw(); });
      redraw();
      made.push(panel([title, element("label", {}, "epsilon ", select)], holder));
    }
    fill(id, made);
  }

  function drawHeatmaps() {
    const shown = rows.filter((row) => isShown(row) && !row.targeted)
      .flatMap((row) => entriesOf[rows.indexOf(row)].map((entry) => ({ ...entry, row })));
    shown.sort((a, b) => a.epsilon - b.epsilon);
    byEpsilon("heatmap-panels", group(shown, ({ row }) => JSON.stringify([row.dataset, row.norm])), (own, title, at) => {
      const order = new Map(rows.map((row, i) => [row, i]));
      own.sort((a, b) => order.get(a.row) - order.get(b.row));
      return chart("heatmap", own.map((entry) => ({
        line: entry.row.victim, column: entry.row.attack, text: entry.text, value: entry.value, n: entry.n,
        shown: shownText(entry), doubt: entry.doubt || "none",
        label: entry.value === null ? entry.mark : entry.value.toFixed(0) + (entry.doubt ? "?" : ""),
      })), `Robust accuracy of each model under each attack: ${title}, epsilon ${at}`);
    });
  }

  function drawDifferences() {
    const shown = data.pairs.filter((pair) => pair.difference !== null
      && isShown({ dataset: pair.dataset, norm: pair.norm })
      && pair.models.every((model) => isShown({ model })) && pair.defences.every((defence) => isShown({ defence })));
    shown.sort((a, b) => a.epsilon - b.epsilon);
    const ink = { better: "var(--s2)", worse: "var(--s1)", tied: "var(--muted)", doubtful: "var(--s3)" };
    byId("difference-panels") && byEpsilon("difference-panels",
      group(shown, (pair) => JSON.stringify([pair.dataset, pair.norm])), (own, title, at) =>
        chart("differences", own.slice(0, MOST_DIFFERENCES).map((pair) => ({
          ...pair, pair: `${pair.second} − ${pair.first}${pair.seed ? ` (seed ${pair.seed})` : ""}`, colour: ink[pair.result],
        })), `Differences in robust accuracy: ${title}, epsilon ${at}`));
  }

  function drawClasses() {
    const shown = data.classes.entries.filter(isShown);
    byEpsilon("class-panels", group(shown, (one) => JSON.stringify([one.dataset, one.norm])), (own, title, at) =>
      chart("heatmap", own.flatMap((one) => one.numbers.map(([value, n, low, high], i) => ({
        line: one.doubt ? `${one.victim} ?` : one.victim, column: data.classes.names[one.dataset][i] || String(i),
        text: one.text, value, n, doubt: one.doubt || "none", label: value === null ? "–" : value.toFixed(0),
        shown: value === null ? "no image" : low === undefined ? `${value.toFixed(1)}%`
          : `${value.toFixed(1)}% (${low.toFixed(1)} to ${high.toFixed(1)})`,
      }))), `Robust accuracy by class: ${title}, epsilon ${at}`));
  }

  function drawTransfers() {
    if (!byId("transfer-panels")) return;
    const shown = data.transfers.filter(({ sweep, dataset, norm, attack }) => isShown({ sweep, dataset, norm, attack }));
    shown.sort((a, b) => a.epsilon - b.epsilon);
    const key = (one) => JSON.stringify([...(severalSweeps() ? [one.sweep] : []), one.dataset, one.norm, one.attack]);
    byEpsilon("transfer-panels", group(shown, key), (own, title, at) => chart("heatmap", own.map((one) => {
      const text = one.value === null ? one.mark : one.value.toFixed(0) + one.blind;
      return {
        line: `against ${one.source}`, column: `on ${one.target}`, text: one.text, value: one.value,
        shown: one.value === null ? one.mark : `${one.value.toFixed(1)}%`, doubt: "see the checks",
        label: one.white_box ? `(${text})` : one.same_network ? `${text}*` : text,
      };
    }), `Robust accuracy under images made against other victims: ${title}, epsilon ${at}`));
  }

  function drawTraining() {
    const shown = data.training.filter(({ dataset, model }) => isShown({ dataset, model }));
    const made = [];
    for (const [dataset, own] of group(shown, (one) => one.dataset)) {
      const victims = [...new Set(own.map((one) => one.victim))];
      const keys = element("div", { class: "legend" }, ...victims.slice(0, 12).map((name, i) =>
        element("span", {}, element("i", { style: `border-top-color:${colour(i)}` }), name)));
      made.push(panel(dataset, keys, chart("training", own.map((one) => ({
        ...one, colour: colour(victims.indexOf(one.victim)), dash: one.of === "training images" ? [1, 0] : [5, 3],
      })), `Accuracy against epoch, ${dataset}: ${victims.length} victims`,
        { ticks: new Map(own.map(({ epoch }) => [epoch, String(epoch)])), from: 1 })));
    }
    fill("training-panels", made);
  }

  function drawEffort() {
    const titles = { phase: "by phase", attack: "by attack", model: "by model" };
    fill("effort-panels", Object.entries(data.effort).filter(([, bars]) => bars.length)
      .map(([name, bars]) => panel(titles[name], chart("bars", bars.slice(0, 20), `Seconds ${titles[name]}`))));
  }

  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const closed of all("details.rule:not([open]), #origin details:not([open])")) {
      closed.open = true;
      opened.push(closed);
    }
    drawAll();
  });
  window.addEventListener("afterprint", () => { while (opened.length) opened.pop().open = false; });

  function begin(kept = { known: {} }) {
    read(byId("data").textContent);
    beginFilters(kept);
    drawEffort();
    show();
  }

  /* -- served while a sweep runs ----------------------------------------------------------------------- */

  let where, version;  // what the server said with the page; of what is shown

  const openDetails = () => all("main details[open]:not(.filter)").map((one) => one.querySelector("summary").textContent);
  const sortedBy = () => all("th[aria-sort]").map((head) => [
    all("table").indexOf(head.closest("table")), head.textContent, head.getAttribute("aria-sort")]);

  /* What is shown, anew, as it was: filters, what is open, what is sorted. */
  function replaceBody(content) {
    const kept = known(), lines = byId("lines").value, open = new Set(openDetails()), sorted = sortedBy();
    fill("curve-panels", []);
    const fresh = new DOMParser().parseFromString(content.body, "text/html");
    byId("body").replaceChildren(...fresh.body.childNodes);
    byId("data").textContent = content.data;
    byId("lines").value = lines;
    begin(kept);
    for (const one of all("main details:not(.filter)")) {
      if (open.has(one.querySelector("summary").textContent)) one.open = true;
    }
    for (const [table, name, direction] of sorted) {
      const head = all("th", all("table")[table]).find((one) => one.textContent === name);
      if (!head) continue;
      sort(head.querySelector("button"));
      if (direction === "descending") sort(head.querySelector("button"));
    }
  }

  /* Not under somebody's fingers. */
  const busy = () => document.querySelector("details.filter[open]") || byId("body").querySelector("select:focus")
    || !document.getSelection().isCollapsed;

  function drawStatus(status) {
    const parts = status.problem ? [element("p", { class: "error" }, status.problem)] : [];
    for (const run of status.runs) {
      const share = run.cells ? Math.floor((100 * run.cells_done) / run.cells) : 0;
      const name = status.runs.length > 1 || severalSweeps() ? `${run.sweep}: ` : "";
      parts.push(
        element("p", {}, element("strong", {}, `${name}${run.state}`),
          `, ${run.cells_done} of ${run.cells} cells done, ${run.units_done} of ${run.units} units, `
          + `${run.units_failed} failed; ${run.took}${run.left ? `, ${run.left}` : ""}`),
        element("div", { class: "bar", role: "progressbar", "aria-valuenow": share, "aria-valuemin": 0,
          "aria-valuemax": 100, "aria-label": "cells done" }, element("i", { style: `width:${share}%` })));
      if (run.note) parts.push(element("p", { class: "note" }, run.note));
      const workers = Object.entries(run.workers);
      if (workers.length) {
        parts.push(element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Workers" },
          element("table", {}, element("tbody", {}, ...workers.map(([worker, on]) =>
            element("tr", {}, element("th", { scope: "row" }, worker), element("td", {}, on || "idle")))))));
      }
      if (run.failures.length) {
        parts.push(element("ul", { class: "error" }, ...run.failures.map((text) => element("li", {}, text))));
      }
      parts.push(element("p", { class: "note" }, `Run ${run.run} on ${run.host}, last heard of ${run.updated}.`));
    }
    if (!status.runs.length) parts.push(element("p", {}, "No run has said anything yet."));
    byId("status").replaceChildren(...parts);
  }

  async function look() {
    try {
      const status = await (await fetch("status")).json();
      drawStatus(status);
      if (status.version !== version && !busy()) {
        const content = await (await fetch("content")).json();
        replaceBody(content);
        version = content.version;
      }
    } catch {
      byId("status").replaceChildren(element("p", { class: "error" },
        "The server does not answer: it has been ended, or this machine is busy. What is below was read before."));
    }
    setTimeout(look, 1000 * where.seconds);
  }

  const cellText = (value) => value === null ? "–" : typeof value === "object" ? JSON.stringify(value)
    : typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);

  async function ask(event) {
    event.preventDefault();
    byId("asked").textContent = "asking …";
    try {
      const answer = await fetch("query", {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ sql: byId("statement").value }),
      });
      const found = await answer.json();
      if (found.error !== undefined) {
        byId("asked").textContent = "";
        byId("answered").replaceChildren(element("pre", { class: "error" }, found.error));
        return;
      }
      const numeric = found.columns.map((_, i) => found.rows.some((row) => typeof row[i] === "number"));
      byId("asked").textContent = found.more
        ? `the first ${found.rows.length} rows; robustsweep query has all` : `${found.rows.length} rows`;
      byId("answered").replaceChildren(element("table", {},
        element("thead", {}, element("tr", {}, ...found.columns.map((name, i) =>
          element("th", { scope: "col", class: numeric[i] ? "number" : "" },
            element("button", { type: "button", class: "sort" }, name))))),
        element("tbody", {}, ...found.rows.map((row) => element("tr", {}, ...row.map((value, i) =>
          element("td", { class: numeric[i] ? "number" : "", "data-sort": value === null ? "" : String(value) },
            cellText(value))))))));
    } catch {
      byId("asked").textContent = "the server does not answer";
    }
  }

  begin();
  window.report = { drawAll };
  if (byId("where")) {
    where = JSON.parse(byId("where").textContent);
    version = where.version;
    byId("ask").addEventListener("submit", ask);
    byId("statement").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
    });
    look();
  }
})();

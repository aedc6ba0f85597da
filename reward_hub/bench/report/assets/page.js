// Puts the page together from the data that stand in it. Texts of the data are only ever set as text.

const PAGE_SIZE = 25;
const DATA = JSON.parse(document.getElementById("data").textContent);

function card(title, note, size, ...children) {
  return html("section", { class: `card ${size}` }, html("h3", {}, title), note ? html("p", { class: "quiet" }, note) : null, ...children);
}

// A square, a ring, or for curves the line as it is drawn.
function swatch({ color, dashes, ring }) {
  const mark = svg("svg", { class: "swatch", width: dashes ? 28 : 11, height: 11, "aria-hidden": "true" });
  if (dashes) mark.append(svg("path", { d: "M0 5.5H28", stroke: color, "stroke-width": 2.2, "stroke-dasharray": dashes.join(" ") || "none" }));
  else if (ring) mark.append(svg("circle", { cx: 5.5, cy: 5.5, r: 4, fill: "none", stroke: color, "stroke-width": 1.5 }));
  else mark.append(svg("rect", { width: 11, height: 11, rx: 3, fill: color }));
  return mark;
}

function legend(entries) {
  return html("div", { class: "legend" }, ...entries.map((entry) => html("span", {}, swatch(entry), entry.name)));
}

// A table whose columns sort: columns = [{name, number}], rows = [{cells, values, more?}].
function sortable(columns, rows, { pageSize = rows.length, kind = "table", filters = null } = {}) {
  let order = null;
  let start = 0;
  const head = html("tr");
  const body = html("tbody");
  const count = html("span", { class: "quiet", "aria-live": "polite" });
  const back = html("button", { type: "button", onclick: () => move(-pageSize) }, "Previous");
  const next = html("button", { type: "button", onclick: () => move(pageSize) }, "Next");

  function chosen() {
    const kept = filters ? rows.filter(filters.keeps) : [...rows];
    if (order === null) return kept;
    const sign = order.down ? -1 : 1;
    // What has no value stands last in either direction.
    return kept.sort((a, b) => {
      const [p, q] = [a.values[order.column], b.values[order.column]];
      if (p === null || q === null) return (p === null) - (q === null);
      return sign * (typeof p === "number" ? p - q : String(p).localeCompare(String(q), undefined, { numeric: true }));
    });
  }

  function move(by) {
    start = Math.max(0, start + by);
    draw();
  }

  function draw() {
    const kept = chosen();
    start = kept.length === 0 ? 0 : Math.min(start, Math.floor((kept.length - 1) / pageSize) * pageSize);
    body.replaceChildren(...kept.slice(start, start + pageSize).map((row) => line(row, columns)));
    count.textContent = kept.length === 0 ? "no items" : `${start + 1} to ${Math.min(start + pageSize, kept.length)} of ${kept.length}`;
    back.disabled = start === 0;
    next.disabled = start + pageSize >= kept.length;
  }

  columns.forEach((column, i) => {
    const cell = html("th", { class: column.number ? "number" : "", scope: "col" });
    const button = html("button", { type: "button", title: column.title ?? null, onclick: () => sort(i) }, column.name);
    if (column.color) button.prepend(swatch(column), " ");
    cell.append(button);
    head.append(cell);
  });

  function sort(i) {
    order = { column: i, down: order !== null && order.column === i ? !order.down : Boolean(columns[i].number) };
    [...head.children].forEach((cell, j) => {
      if (j === i) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    start = 0;
    draw();
  }

  if (filters) filters.changed = () => ((start = 0), draw());
  draw();
  const table = html("div", { class: "wide" }, html("table", { "data-table": kind }, html("thead", {}, head), body));
  return rows.length > pageSize ? [table, html("div", { class: "controls" }, back, next, count)] : [table];
}

function line(row, columns) {
  const cells = row.cells.map((content, i) => {
    const cell = html("td", { class: columns[i].number ? "number" : columns[i].text ? "text" : "" });
    cell.append(content);
    return cell;
  });
  const node = html("tr", {}, ...cells);
  if (row.more) {
    node.className = "item";
    // A press of the button is a click on the row.
    const button = html("button", { type: "button", class: "opens", "aria-expanded": "false" }, ...cells[0].childNodes);
    cells[0].append(button);
    node.addEventListener("click", () => {
      const open = node.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
      if (open) {
        const opened = html("td", { colspan: columns.length });
        opened.append(row.more());
        node.after(html("tr", { class: "more" }, opened));
      } else node.nextElementSibling.remove();
    });
  }
  return node;
}

function verdict(correct, share) {
  if (!share && typeof correct === "number") return figure(correct);
  if (correct === null || correct === undefined) return html("span", { class: "quiet" }, "–");
  if (correct === 1) return html("span", { class: "right" }, "right");
  if (correct === 0) return html("span", { class: "wrong" }, "wrong");
  return html("span", {}, percent(correct));
}

function summary(group) {
  const columns = [{ name: "Model" }, ...group.measures.map((measure) => ({ ...measure, number: true }))];
  const rows = group.runs.map((run) => ({
    cells: [legend([run]), ...run.measures.map((value, i) => shown(value, group.measures[i]))],
    values: [run.name, ...run.measures.map((value) => (Array.isArray(value) ? value[0] : value))],
  }));
  return card(group.measures[0].name, group.about, "", ...sortable(columns, rows, { kind: "summary" }));
}

// A measure may be [value, low, high].
function shown(value, measure) {
  if (!Array.isArray(value)) return measure.share ? percent(value) : figure(value);
  const text = measure.share ? percent(value[0]) : figure(value[0]);
  if (value[1] === null || value[1] === undefined) return text;
  const show = (bound) => (measure.share ? (100 * bound).toFixed(1) : figure(bound));
  return html("span", {}, text, html("span", { class: "quiet" }, `  ${show(value[1])} to ${show(value[2])}`));
}

function bars(group) {
  return group.bars.map((part) => {
    const rows = part.rows.map((row) => ({
      name: row.name,
      bars: row.values.map((entry, i) => ({
        value: entry === null ? null : entry[0],
        low: entry === null ? null : entry[1],
        high: entry === null ? null : entry[2],
        color: group.runs[i].color,
        note: entry === null ? "" : `${group.runs[i].name}\n${row.name}: ${percent(entry[0])}` + (entry[1] === null ? "" : `\n95 % interval ${percent(entry[1])} to ${percent(entry[2])}`) + (entry[3] ? `\n${entry[3]} items` : ""),
      })),
    }));
    const size = group.bars.length > 1 && group.bars.every((other) => other.rows.length < 9) ? "half" : "";
    const said = rows.flatMap((row) => row.bars.map((bar) => bar.note.replaceAll("\n", ", "))).filter(Boolean);
    return card(part.title, part.note, size, legend(group.runs), barChart(rows, `${part.title}: ${said.join("; ")}`));
  });
}

// Beside each other: the scores of a run, and how they go with length.
function scores(group) {
  const half = group.runs.some((run) => run.scatter) || group.runs.length > 1 ? "half" : "";
  return group.runs.flatMap((run) => [run.histogram && distribution(run, half), run.scatter && lengths(run, half)].filter(Boolean));
}

function distribution(run, size) {
  const { edges, x, note } = run.histogram;
  const series = run.histogram.series.map((one, i) => ({ ...one, color: i === 0 ? run.color : "#8a94a6", dashes: i === 0 ? [] : [4, 2] }));
  return card(`Scores of ${run.name}`, note, size, legend(series), histogram(edges, series, x, `scores of ${run.name}`));
}

function lengths(run, size) {
  const { points, x, y, note } = run.scatter;
  const judged = points.some((point) => point[2] !== null);
  const key = judged ? [legend([{ name: "right", color: run.color }, { name: "wrong", color: "var(--quiet)", ring: true }])] : [];
  const picture = scatter(points, { xName: x, yName: y, color: run.color, label: `length bias of ${run.name}. ${note}` });
  return card(`Length bias of ${run.name}`, note, size, ...key, picture);
}

function curves(group) {
  return group.runs
    .filter((run) => run.curves)
    .map((run) => {
      const told = run.curves.lines[0].points.map((point) => `n = ${point[0]}: ${(run.curves.share ? percent : figure)(point[1])}`);
      const picture = curveChart(run.curves, `best of n of ${run.name}, its choice at ${told.join(", ")}`);
      return card(`Best of n: ${run.name}`, run.curves.note, group.runs.length > 1 ? "half" : "", legend(run.curves.lines), picture);
    });
}

// Colours between the three of the scale, for a share in [0, 1].
function tint(share) {
  const stops = [[204, 51, 37], [240, 200, 80], [31, 111, 190]];
  const place = Math.max(0, Math.min(1, share)) * 2;
  const i = Math.min(1, Math.floor(place));
  return stops[i].map((value, k) => Math.round(value + (stops[i + 1][k] - value) * (place - i))).join(" ");
}

function scale([low, high]) {
  return html("span", { class: "scaled quiet" }, figure(low), html("span", { class: "scale" }), figure(high));
}

function stepView(group) {
  if (!group.steps || group.steps.items.length === 0) return [];
  const { items, scales, note } = group.steps;
  const place = html("div", { "data-chart": "steps" });
  const select = html("select", { "aria-label": "item", onchange: () => draw(Number(select.value)) });
  items.forEach((item, i) => select.append(html("option", { value: i }, `${item.id}: ${item.truth}`)));

  function draw(i) {
    const item = items[i];
    const views = item.runs.map((scores, r) => {
      if (scores === null) return html("p", { class: "quiet" }, `${group.runs[r].name}: failed`);
      const [low, high] = scales[r];
      const list = html("ol", { class: "steps" });
      scores.forEach((score, s) => {
        const row = html("li", { "data-score": score }, html("span", { class: "place" }, String(s)), html("span", {}, item.steps ? item.steps[s] : "(texts were not kept)"), html("span", { class: "score" }, figure(score)));
        row.style.setProperty("--shade", tint((score - low) / (high - low || 1)));
        if (item.wrong.includes(s)) row.append(html("span", { class: "truth" }, s === item.wrong[0] ? "the first wrong step" : "a wrong step"));
        list.append(row);
      });
      const head = legend([group.runs[r]]);
      head.append(scale(scales[r]));
      return html("div", {}, head, list);
    });
    place.replaceChildren(item.prompt ? html("pre", {}, item.prompt) : "", ...views);
  }

  draw(0);
  return [card("Steps, coloured by score", note, "", html("div", { class: "controls" }, select), place)];
}

function itemTable(group) {
  const named = group.items.some((item) => item.subset !== null);
  const judged = group.items.some((item) => item.runs.some((run) => run.correct !== null));
  const columns = [{ name: "item" }, ...(named ? [{ name: "subset" }] : []), ...group.runs.flatMap((run) => [{ name: group.item_value, number: true, color: run.color, title: `${run.name}: ${group.item_value}` }, ...(judged ? [{ name: group.share ? "verdict" : "grade", title: `${run.name}: what the rule says of the item` }] : [])])];
  const rows = group.items.map((item) => ({
    item,
    cells: [html("span", { class: "id", title: item.id }, item.id), ...(named ? [item.subset ?? ""] : []), ...item.runs.flatMap((run) => [run.error ? html("span", { class: "wrong", title: run.error }, "failed") : figure(run.value), ...(judged ? [verdict(run.correct, group.share)] : [])])],
    values: [item.id, ...(named ? [item.subset] : []), ...item.runs.flatMap((run) => (judged ? [run.value, run.correct] : [run.value]))],
    more: () => texts(group, item),
  }));
  const words = html("input", { type: "search", placeholder: "Search items", "aria-label": "Search items", oninput: () => filters.changed() });
  const only = html("select", { "aria-label": "Which items", onchange: () => filters.changed() });
  only.append(html("option", { value: "all" }, "all items"), html("option", { value: "wrong" }, "wrong in some model"), html("option", { value: "failed" }, "failed"));
  if (group.runs.length > 1) only.append(html("option", { value: "differ" }, "models disagree"));
  const filters = {
    keeps: ({ item }) => {
      const wanted = words.value.trim().toLowerCase();
      if (wanted && !item.search.includes(wanted)) return false;
      if (only.value === "wrong") return item.runs.some((run) => run.correct !== null && run.correct < 1);
      if (only.value === "failed") return item.runs.some((run) => run.error);
      if (only.value === "differ") return new Set(item.runs.map((run) => run.correct)).size > 1;
      return true;
    },
  };
  rows.forEach(({ item }) => (item.search = [item.id, item.subset ?? "", ...(item.texts ?? []).map((part) => part[1])].join(" ").toLowerCase()));
  const note = "A row opens to show its texts and scores." + (group.items_left_out ? ` These are the first ${group.items.length} items; ${group.items_left_out} more stand in items.jsonl.` : "");
  return card("Items", note, "", legend(group.runs), html("div", { class: "controls" }, words, only), ...sortable(columns, rows, { pageSize: PAGE_SIZE, kind: "items", filters }));
}

function texts(group, item) {
  const parts = (item.texts ?? []).map(([name, text]) => html("div", {}, html("b", {}, name), html("pre", {}, text)));
  const scores = item.runs.map((run, i) => html("div", {}, html("b", {}, group.runs[i].name), html("pre", {}, run.error ?? run.detail)));
  return html("div", { class: "texts" }, ...parts, ...scores);
}

function facts(group) {
  const parts = group.runs.map((run) => {
    const list = html("dl");
    run.facts.forEach(([name, value]) => list.append(html("dt", {}, name), html("dd", {}, value)));
    return html("div", {}, legend([run]), list);
  });
  return card("How these numbers were made", null, "", html("details", {}, html("summary", {}, "Versions, hashes, commands"), ...parts));
}

function comparisons(group) {
  if (!group.comparisons || group.comparisons.length === 0) return [];
  const signed = (value) => (value > 0 ? "+" : "") + (group.share ? (100 * value).toFixed(1) : figure(value));
  const columns = [{ name: "First" }, { name: "Second" }, { name: "Second less first", number: true }, { name: "95 % interval", number: true }, { name: "p (McNemar)", number: true, title: "McNemar's exact test, two-sided; for items that are right or wrong" }];
  const rows = group.comparisons.map((one) => ({
    cells: [one.first, one.second, signed(one.difference), `${signed(one.low)} to ${signed(one.high)}`, figure(one.p)],
    values: [one.first, one.second, one.difference, one.low, one.p],
  }));
  const what = group.share ? "Mean of the verdicts (right is 100 %, wrong 0 %), second less first, in percentage points" : "Mean grade, second less first";
  const note = `${what}, over the items for which both have a verdict; the interval is that of a paired bootstrap. It holds 0 where the two cannot be told apart.`;
  return [card("Side by side", note, "", ...sortable(columns, rows, { kind: "comparisons", pageSize: 15 }))];
}

const main = document.getElementById("main");
DATA.groups.forEach((group, g) => {
  const id = `suite-${g}`;
  if (DATA.groups.length > 1) document.getElementById("contents").append(html("a", { href: `#${id}` }, group.title));
  const cards = html("div", { class: "cards" });
  cards.append(summary(group), ...comparisons(group), ...bars(group), ...curves(group), ...scores(group), ...stepView(group), itemTable(group), facts(group));
  main.append(html("h2", { id }, group.title), cards);
});
document.documentElement.dataset.ready = "true";

"use strict";
// Charts drawn as SVG at the width that is there; they are drawn again where the width changes.

const SVG = "http://www.w3.org/2000/svg";

function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick" || key === "oninput" || key === "onchange") node[key] = value;
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(name, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== null) node.textContent = text;
  return node;
}

function percent(value) {
  return value === null || value === undefined ? "–" : (100 * value).toFixed(1) + " %";
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e5 || size < 1e-3) ? value.toExponential(2) : value.toPrecision(4).replace(/\.?0+$/, "");
}

const tip = {
  show(event, text) {
    const box = document.getElementById("tip");
    box.textContent = text;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = Math.max(6, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
    box.style.top = Math.max(6, event.clientY - height - 12) + "px";
  },
  hide() {
    document.getElementById("tip").hidden = true;
  },
};

function told(node, text) {
  node.addEventListener("mousemove", (event) => tip.show(event, text));
  node.addEventListener("mouseleave", tip.hide);
  node.append(svg("title", {}, text));
  return node;
}

// A place for a chart: `draw(width)` gives the svg.
function chart(kind, draw) {
  const place = html("div", { class: "chart", "data-chart": kind });
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width > 0 && width !== drawn) {
      drawn = width;
      place.replaceChildren(draw(width));
    }
  }).observe(place);
  return place;
}

function frame(width, height, label) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
}

// Round values that cover [low, high] in about n steps.
function ticks(low, high, n) {
  const span = high - low || 1;
  const raw = span / Math.max(1, n);
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * size).find((candidate) => candidate >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function short(text, room) {
  const letters = Math.max(4, Math.floor(room / 7.2));
  return text.length <= letters ? text : text.slice(0, letters - 1) + "…";
}

// Horizontal bars with intervals: rows = [{name, bars: [{value, low, high, color, note}]}], values in [0, 1].
function barChart(rows, label) {
  return chart("bars", (width) => {
    const narrow = width < 520;
    const left = narrow ? 0 : Math.min(220, 24 + 7.4 * Math.max(...rows.map((row) => row.name.length)));
    const right = 52;
    const thick = 15;
    const head = narrow ? 20 : 0;
    const tall = (row) => head + row.bars.length * (thick + 3) + 12;
    const height = rows.reduce((sum, row) => sum + tall(row), 0) + 24;
    const x = (value) => left + (width - left - right) * value;
    const picture = frame(width, height, label);
    for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
      picture.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - 22 }));
      picture.append(svg("text", { x: x(tick), y: height - 6, "text-anchor": "middle" }, `${100 * tick}`));
    }
    let y = 4;
    for (const row of rows) {
      const name = svg("text", { class: "name", x: narrow ? 0 : left - 10, y: narrow ? y + 13 : y + (tall(row) - 12) / 2 + 4, "text-anchor": narrow ? "start" : "end" }, short(row.name, narrow ? width : left));
      name.append(svg("title", {}, row.name));
      picture.append(name);
      let top = y + head;
      for (const bar of row.bars) {
        if (bar.value !== null && bar.value !== undefined) {
          const shown = Math.max(0, Math.min(1, bar.value));
          const mark = svg("rect", { class: "mark", x: x(0), y: top, width: Math.max(1.5, x(shown) - x(0)), height: thick, rx: 3, fill: bar.color });
          picture.append(told(mark, bar.note));
          let end = x(shown);
          if (bar.low !== null && bar.low !== undefined) {
            const middle = top + thick / 2;
            const low = x(Math.max(0, bar.low));
            const high = x(Math.min(1, bar.high));
            picture.append(svg("path", { class: "whisker", fill: "none", d: `M${low} ${middle - 4}v8M${low} ${middle}H${high}M${high} ${middle - 4}v8` }));
            end = Math.max(end, high);
          }
          picture.append(svg("text", { class: "number", x: end + 6, y: top + thick - 3 }, (100 * bar.value).toFixed(1)));
        } else {
          picture.append(svg("text", { x: x(0) + 4, y: top + thick - 3 }, "no value"));
        }
        top += thick + 3;
      }
      y += tall(row);
    }
    return picture;
  });
}

function axes(picture, { x, y, xs, ys, left, bottom, right, top, xName, yName, xText = figure, yText = figure }) {
  for (const tick of ys) {
    picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, yText(tick)));
  }
  for (const tick of xs) {
    picture.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }));
    picture.append(svg("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, xText(tick)));
  }
  picture.append(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  picture.append(svg("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, xName));
  if (yName) picture.append(svg("text", { x: left - 6, y: top - 8, "text-anchor": "start" }, yName));
}

// Overlaid histograms over shared edges: series = [{name, color, counts}].
function histogram(edges, series, xName, label) {
  return chart("histogram", (width) => {
    const height = 236;
    const box = { left: 40, right: width - 10, top: 20, bottom: height - 42 };
    const shares = series.map((one) => {
      const total = one.counts.reduce((sum, count) => sum + count, 0) || 1;
      return one.counts.map((count) => count / total);
    });
    const most = Math.max(...shares.flat(), 1e-9);
    const x = (value) => box.left + ((box.right - box.left) * (value - edges[0])) / (edges[edges.length - 1] - edges[0]);
    const y = (value) => box.bottom - ((box.bottom - box.top) * value) / most;
    const picture = frame(width, height, label);
    axes(picture, { x, y, xs: ticks(edges[0], edges[edges.length - 1], width / 80), ys: ticks(0, most, 4), ...box, xName, yName: "share", yText: (value) => `${figure(100 * value)}%` });
    series.forEach((one, s) => {
      let path = `M${x(edges[0])} ${y(0)}`;
      shares[s].forEach((share, i) => (path += `V${y(share)}H${x(edges[i + 1])}`));
      const mark = svg("path", { class: "mark", d: path + `V${y(0)}Z`, fill: one.color, "fill-opacity": 0.38, stroke: one.color, "stroke-width": 1.6 });
      picture.append(told(mark, `${one.name}: ${one.counts.reduce((sum, count) => sum + count, 0)} scores`));
    });
    return picture;
  });
}

// points = [[x, y, right?]]; wrong ones are drawn grey.
function scatter(points, { xName, yName, color, label }) {
  return chart("scatter", (width) => {
    const height = 280;
    const box = { left: 46, right: width - 10, top: 22, bottom: height - 42 };
    const [x0, x1] = range(points.map((point) => point[0]));
    const [y0, y1] = range(points.map((point) => point[1]));
    const x = (value) => box.left + ((box.right - box.left) * (value - x0)) / (x1 - x0);
    const y = (value) => box.bottom - ((box.bottom - box.top) * (value - y0)) / (y1 - y0);
    const picture = frame(width, height, label);
    axes(picture, { x, y, xs: ticks(x0, x1, width / 90), ys: ticks(y0, y1, 5), ...box, xName, yName });
    if (x0 < 0 && x1 > 0) picture.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
    if (y0 < 0 && y1 > 0) picture.append(svg("line", { class: "zero", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }));
    for (const point of points) {
      const mark = svg("circle", { class: "mark", cx: x(point[0]).toFixed(1), cy: y(point[1]).toFixed(1), r: 2.8, fill: point[2] ? color : "var(--quiet)", "fill-opacity": 0.55 });
      picture.append(told(mark, `${xName}: ${figure(point[0])}\n${yName}: ${figure(point[1])}`));
    }
    return picture;
  });
}

function range(values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

// Curves over n = 1, 2, 4, ...: curves = [{name, color, dashed, points: [[n, value, low, high]]}], values in [0, 1].
function curveChart(curves, label) {
  return chart("curves", (width) => {
    const height = 320;
    const box = { left: 46, right: width - 16, top: 22, bottom: height - 42 };
    const all = curves.flatMap((curve) => curve.points);
    const most = Math.max(...all.map((point) => point[0]), 2);
    const low = Math.max(0, Math.min(...all.map((point) => point[2] ?? point[1])) - 0.04);
    const high = Math.min(1, Math.max(...all.map((point) => point[3] ?? point[1])) + 0.04);
    const x = (n) => box.left + ((box.right - box.left) * Math.log2(n)) / Math.log2(most);
    const y = (value) => box.bottom - ((box.bottom - box.top) * (value - low)) / (high - low || 1);
    const picture = frame(width, height, label);
    const ns = [...new Set(all.map((point) => point[0]))].sort((a, b) => a - b);
    axes(picture, { x, y, xs: ns, ys: ticks(low, high, 6), ...box, xName: "candidates (n)", yName: "accuracy", yText: (value) => `${figure(100 * value)}%` });
    for (const curve of curves) {
      const bounds = curve.points.filter((point) => point[2] !== null && point[2] !== undefined);
      if (bounds.length > 1) {
        const edge = bounds.map((p) => `${x(p[0])} ${y(p[3])}`).join("L") + "L" + [...bounds].reverse().map((p) => `${x(p[0])} ${y(p[2])}`).join("L");
        picture.append(svg("path", { d: `M${edge}Z`, fill: curve.color, "fill-opacity": 0.12 }));
      }
      const line = curve.points.map((point) => `${x(point[0])} ${y(point[1])}`).join("L");
      picture.append(svg("path", { d: "M" + line, fill: "none", stroke: curve.color, "stroke-width": 2.2, "stroke-dasharray": curve.dashed ? "6 5" : "none" }));
      for (const point of curve.points) {
        const mark = svg("circle", { class: "mark", cx: x(point[0]), cy: y(point[1]), r: 4, fill: curve.color });
        picture.append(told(mark, `${curve.name}, n = ${point[0]}: ${percent(point[1])}`));
      }
    }
    return picture;
  });
}

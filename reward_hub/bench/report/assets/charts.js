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
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(0) : value.toPrecision(4).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
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

// [value, text] of round values in [low, high], about n of them, with the digits that tell one from the next.
function ticks(low, high, n) {
  const span = high - low || 1;
  const raw = span / Math.max(1, n);
  const place = Math.floor(Math.log10(raw));
  const times = [1, 2, 2.5, 5, 10].find((m) => m * 10 ** place >= raw) ?? 10;
  const step = times * 10 ** place;
  const digits = (times === 10 ? 1 : times === 2.5 ? -1 : 0) + place;
  const largest = Math.max(Math.abs(low), Math.abs(high));
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  // Counted from the first, since beyond 2^53 adding 1 changes nothing.
  for (let i = 0; i <= 2 * n + 2 && (first + i) * step <= high + 1e-9 * span; i++) {
    const value = Number(((first + i) * step).toPrecision(15));
    const size = Math.floor(Math.log10(Math.abs(value) || 1));
    const long = largest >= 1e6 || largest < 1e-4;
    found.push([value, long && value !== 0 ? value.toExponential(Math.max(0, Math.min(7, size - digits))) : value.toFixed(Math.max(0, Math.min(12, -digits)))]);
  }
  return found;
}

function percents(low, high, n) {
  return ticks(100 * low, 100 * high, n).map(([value, text]) => [value / 100, text + "%"]);
}

const pen = document.createElement("canvas").getContext("2d");

function widthOf(text, size = 12) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

function short(text, room) {
  const letters = [...text];
  if (widthOf(text, 13) <= room) return text;
  while (letters.length > 1 && widthOf(letters.join("") + "…", 13) > room) letters.pop();
  return letters.join("") + "…";
}

// Horizontal bars with intervals: rows = [{name, bars: [{value, low, high, color, note}]}], values in [-1, 1].
function barChart(rows, label) {
  return chart("bars", (width) => {
    const narrow = width < 520;
    const left = narrow ? 0 : Math.min(240, 16 + Math.max(...rows.map((row) => widthOf(row.name, 13))));
    const right = 52;
    const thick = 15;
    const head = narrow ? 20 : 0;
    const tall = (row) => head + row.bars.length * (thick + 3) + 12;
    const height = rows.reduce((sum, row) => sum + tall(row), 0) + 24;
    // A PRM-Score may be negative; the axis then begins at a quarter below.
    const floor = Math.min(0, Math.floor(4 * Math.min(...rows.flatMap((row) => row.bars.map((bar) => Math.min(bar.value ?? 0, bar.low ?? 0))))) / 4);
    const inside = (value) => Math.max(floor, Math.min(1, value));
    const x = (value) => left + ((width - left - right) * (value - floor)) / (1 - floor);
    const picture = frame(width, height, label);
    for (let tick = floor; tick <= 1; tick += floor < -0.5 && narrow ? 0.5 : 0.25) {
      picture.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 0, y2: height - 22 }));
      picture.append(svg("text", { x: x(tick), y: height - 6, "text-anchor": tick === floor && narrow ? "start" : "middle" }, `${100 * tick}%`));
    }
    if (floor < 0) picture.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: height - 22 }));
    let y = 4;
    for (const row of rows) {
      const name = svg("text", { class: "name", x: narrow ? 0 : left - 10, y: narrow ? y + 13 : y + (tall(row) - 12) / 2 + 4, "text-anchor": narrow ? "start" : "end" }, short(row.name, narrow ? width : left - 10));
      name.append(svg("title", {}, row.name));
      picture.append(name);
      let top = y + head;
      for (const bar of row.bars) {
        if (bar.value !== null && bar.value !== undefined) {
          const end0 = x(inside(bar.value));
          const mark = svg("rect", { class: "mark", x: Math.min(x(0), end0), y: top, width: Math.max(1.5, Math.abs(end0 - x(0))), height: thick, rx: 3, fill: bar.color });
          picture.append(told(mark, bar.note));
          let end = Math.max(x(0), end0);
          if (bar.low !== null && bar.low !== undefined) {
            const middle = top + thick / 2;
            const low = x(inside(bar.low));
            const high = x(inside(bar.high));
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

// Where a plot lies; left of it there is room for the texts of its y axis.
function boxOf(width, height, ys) {
  return { left: 12 + Math.max(24, ...ys.map(([, text]) => widthOf(text))), right: width - 16, top: 22, bottom: height - 42 };
}

function axes(picture, { x, y, xs, ys, left, bottom, right, top, xName, yName }) {
  for (const [tick, text] of ys) {
    picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, text));
  }
  let taken = -Infinity;
  for (const [tick, text] of xs) {
    picture.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }));
    const half = widthOf(text) / 2;
    if (x(tick) - half < taken + 4) continue;
    taken = x(tick) + half;
    picture.append(svg("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, text));
  }
  picture.append(svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  picture.append(svg("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, xName));
  picture.append(svg("text", { x: left - 6, y: top - 10, "text-anchor": "start" }, yName));
}

// Overlaid histograms over shared edges: series = [{name, color, counts}].
function histogram(edges, series, xName, label) {
  return chart("histogram", (width) => {
    const height = 280;
    const shares = series.map((one) => {
      const total = one.counts.reduce((sum, count) => sum + count, 0) || 1;
      return one.counts.map((count) => count / total);
    });
    const most = Math.max(...shares.flat(), 1e-9);
    const ys = percents(0, most, 4);
    const box = boxOf(width, height, ys);
    const x = (value) => box.left + ((box.right - box.left) * (value - edges[0])) / (edges[edges.length - 1] - edges[0]);
    const y = (value) => box.bottom - ((box.bottom - box.top) * value) / most;
    const picture = frame(width, height, label);
    axes(picture, { x, y, xs: ticks(edges[0], edges[edges.length - 1], width / 90), ys, ...box, xName, yName: "share of these scores" });
    series.forEach((one, s) => {
      let path = `M${x(edges[0])} ${y(0)}`;
      shares[s].forEach((share, i) => (path += `V${y(share)}H${x(edges[i + 1])}`));
      const mark = svg("path", { class: "mark", d: path + `V${y(0)}Z`, fill: one.color, "fill-opacity": 0.38, stroke: one.color, "stroke-width": 1.6, "stroke-dasharray": one.dashes.join(" ") || "none" });
      picture.append(told(mark, `${one.name}: ${one.counts.reduce((sum, count) => sum + count, 0)} scores`));
    });
    return picture;
  });
}

// points = [[x, y, 1 right, 0 wrong or null]]; wrong ones are drawn as grey rings.
function scatter(points, { xName, yName, color, label }) {
  return chart("scatter", (width) => {
    const height = 280;
    const [x0, x1] = range(points.map((point) => point[0]));
    const [y0, y1] = range(points.map((point) => point[1]));
    const ys = ticks(y0, y1, 5);
    const box = boxOf(width, height, ys);
    const x = (value) => box.left + ((box.right - box.left) * (value - x0)) / (x1 - x0);
    const y = (value) => box.bottom - ((box.bottom - box.top) * (value - y0)) / (y1 - y0);
    const picture = frame(width, height, label);
    axes(picture, { x, y, xs: ticks(x0, x1, width / 90), ys, ...box, xName, yName });
    if (x0 < 0 && x1 > 0) picture.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
    if (y0 < 0 && y1 > 0) picture.append(svg("line", { class: "zero", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }));
    for (const point of points) {
      const look = point[2] === 0 ? { fill: "transparent", stroke: "var(--quiet)", "stroke-opacity": 0.8 } : { fill: color, "fill-opacity": 0.7 };
      const mark = svg("circle", { class: "mark", cx: x(point[0]).toFixed(1), cy: y(point[1]).toFixed(1), r: 2.8, ...look });
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

// Curves over n = 1, 2, 4, ...: lines = [{name, color, dashes, points: [[n, value, low, high]]}]; shares lie in [0, 1].
function curveChart({ lines, share, y: yName }, label) {
  return chart("curves", (width) => {
    const height = 320;
    const all = lines.flatMap((line) => line.points);
    const most = Math.max(...all.map((point) => point[0]), 2);
    const [least, largest] = range(all.flatMap((point) => [point[1], point[2] ?? point[1], point[3] ?? point[1]]));
    const [low, high] = share ? [Math.max(0, least), Math.min(1, largest)] : [least, largest];
    const ys = (share ? percents : ticks)(low, high, 6);
    const box = boxOf(width, height, ys);
    const x = (n) => box.left + ((box.right - box.left) * Math.log2(n)) / Math.log2(most);
    const y = (value) => box.bottom - ((box.bottom - box.top) * (value - low)) / (high - low || 1);
    const picture = frame(width, height, label);
    const ns = [...new Set(all.map((point) => point[0]))].sort((a, b) => a - b);
    axes(picture, { x, y, xs: ns.map((n) => [n, String(n)]), ys, ...box, xName: "candidates (n)", yName });
    for (const curve of lines) {
      const bounds = curve.points.filter((point) => point[2] !== null && point[2] !== undefined);
      if (bounds.length > 1) {
        const edge = bounds.map((p) => `${x(p[0])} ${y(p[3])}`).join("L") + "L" + [...bounds].reverse().map((p) => `${x(p[0])} ${y(p[2])}`).join("L");
        picture.append(svg("path", { d: `M${edge}Z`, fill: curve.color, "fill-opacity": 0.12 }));
      }
      const line = curve.points.map((point) => `${x(point[0])} ${y(point[1])}`).join("L");
      picture.append(svg("path", { d: "M" + line, fill: "none", stroke: curve.color, "stroke-width": 2.2, "stroke-dasharray": curve.dashes.join(" ") || "none" }));
      for (const point of curve.points) {
        const mark = svg("circle", { class: "mark", cx: x(point[0]), cy: y(point[1]), r: 4, fill: curve.color });
        picture.append(told(mark, `${curve.name}, n = ${point[0]}: ${(share ? percent : figure)(point[1])}`));
      }
    }
    return picture;
  });
}

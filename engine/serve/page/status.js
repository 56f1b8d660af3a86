"use strict";
// Everything from the server is set as text, never as markup.
const get = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let token = "";

function make(parent, tag, text, attributes = {}, space = null) {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

// Median and 99th percentile of each of the last 300 seconds, in milliseconds, from 0.
function plot(parent, rows) {
  const width = 900, height = 160, left = 50, bottom = 20;
  const now = Math.floor(Date.now() / 1000), most = Math.max(1e-3, ...rows.map(row => row.p99_ms)) * 1.1;
  const x = second => left + (width - left - 10) * (1 - (now - second) / 300), y = ms => (height - bottom) * (1 - ms / most) + 5;
  const svg = make(parent, "svg", "", {viewBox: `0 0 ${width} ${height + 10}`, role: "img", "aria-label": "latency of the last five minutes"}, SVG);
  make(svg, "line", "", {class: "axis", x1: left, x2: width - 10, y1: y(0), y2: y(0)}, SVG);
  for (const share of [0, 0.5, 1]) {
    const ms = most / 1.1 * share;
    make(svg, "text", ms.toPrecision(3) + " ms", {x: left - 4, y: y(ms) + 4, "text-anchor": "end"}, SVG);
  }
  for (const back of [300, 150, 0]) make(svg, "text", back ? `-${back} s` : "now", {x: x(now - back), y: height + 6, "text-anchor": back ? "middle" : "end"}, SVG);
  const seen = rows.filter(row => now - row.second <= 300);
  for (const key of ["p50", "p99"]) {
    const points = seen.map(row => `${x(row.second).toFixed(1)},${y(row[key + "_ms"]).toFixed(1)}`);
    if (points.length === 1) points.push(points[0]);
    make(svg, "polyline", "", {class: key, points: points.join(" ")}, SVG);
  }
}

function show(status) {
  get("state").textContent = status.ready ? "ready" : "not ready";
  const opened = new Set([...document.querySelectorAll("details[open]")].map(node => node.id)), main = get("models");
  main.replaceChildren();
  for (const row of status.index.filter(row => row.reason)) make(main, "p", `${row.name} ${row.version}: ${row.state}: ${row.reason}`);
  for (const model of status.models) {
    const part = make(main, "section"), last = model.latencies.at(-1);
    make(part, "h2", `${model.name}, version ${model.version}`);
    make(part, "p", `${model.network}, ${model.dtype}, ${model.isa}, ${model.threads} threads, ${(model.weight_bytes / 1e3).toFixed(1)} kB of weights, ` +
      `loaded in ${model.load_seconds} s, ${model.queue} waiting`);
    make(part, "p", model.checksum);
    const line = make(part, "p");
    make(line, "span", last ? `median ${last.p50_ms} ms ` : "no request yet ", {class: "key50"});
    make(line, "span", last ? `p99 ${last.p99_ms} ms` : "", {class: "key99"});
    plot(part, model.latencies);
    const details = make(part, "details", "", {id: `plan-${model.name}-${model.version}`});
    details.open = opened.has(details.id);
    make(details, "summary", "Plan");
    make(details, "pre", model.plan);
  }
}

async function refresh() {
  try {
    const answer = await fetch("/status", {headers: token ? {authorization: "Bearer " + token} : {}, cache: "no-store"});
    get("ask").hidden = answer.status !== 401;
    if (answer.ok) show(await answer.json());
    else get("state").textContent = answer.status === 401 ? "this server has a token" : `status ${answer.status}`;
  } catch {
    get("state").textContent = "no answer";
  }
}

get("ask").addEventListener("submit", event => {
  event.preventDefault();
  token = get("token").value;
  refresh();
});
refresh();
setInterval(refresh, 2000);

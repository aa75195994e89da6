// One camera: its picture, the scores of the last hour with the attention under them, its newest window, its alerts.

import { onAlert, onEvidence, reset as resetAlerts } from "./alertlist.js";
import { cards, fetchCameras, isAway, lookOn, showCamera } from "./cameras.js";
import { fetched, listen } from "./live.js";
import { highest } from "./scoreline.js";

const [[id, card]] = cards;
const place = document.getElementById("chart");
const STRIP_PIXELS = 18;
const COLOURS = ["--curve", "--good", "--warn", "--bad"];
let range = 900;
let labels = [];
let windows = [];
let plot = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function fetchHour() {
  const told = await (await fetched(`/api/v1/cameras/${id}/scores?points=4000`)).json();
  labels = told.labels;
  windows = told.ends.map((end, at) => ({
    end,
    seconds: told.window_seconds,
    scores: Object.fromEntries(told.labels.map((label, index) => [label, told.scores[at][index]])),
    attention: told.attention[at],
  }));
  if (plot) plot.destroy();
  plot = windows.length ? new uPlot(options(), table(), place) : null;
  describe();
}

function options() {
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return {
    width: place.clientWidth,
    height: 300,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    padding: [8, 8, STRIP_PIXELS + 4, 0],
    scales: { x: { range: () => bounds() }, y: { range: [0, 1] } },
    axes: [{ ...axis, side: 0, values: (_plot, times) => times.map(clock) }, { ...axis, size: 40 }],
    cursor: { drag: { x: false, y: false } },
    series: [
      { label: "Time (UTC)", value: (_plot, seconds) => (seconds == null ? "–" : new Date(seconds * 1000).toISOString().slice(11, 19)) },
      ...labels.map((label, index) => ({ label, stroke: colour(COLOURS[index % COLOURS.length]), width: 1.5, points: { show: false }, value: (_plot, score) => (score == null ? "–" : score.toFixed(2)) })),
    ],
    hooks: { draw: [drawThreshold, drawAttention] },
  };
}

function clock(seconds) {
  const text = new Date(seconds * 1000).toISOString();
  return text.slice(11, seconds % 60 ? 19 : 16);
}

function bounds() {
  const now = windows.length ? windows[windows.length - 1].end : Date.now() / 1000;
  return [now - range, now];
}

// A gap of several windows breaks the line: nothing was scored in it.
function table() {
  const columns = [[], ...labels.map(() => [])];
  let before = null;
  for (const window of windows) {
    if (before !== null && window.end - before > 3 * window.seconds) {
      columns[0].push(before + 0.001);
      labels.forEach((_label, index) => columns[index + 1].push(null));
    }
    before = window.end;
    columns[0].push(window.end);
    labels.forEach((label, index) => columns[index + 1].push(window.scores[label] ?? null));
  }
  return columns;
}

function drawThreshold(chart) {
  const threshold = Number(card.dataset.thresholds);
  const { ctx, bbox } = chart;
  const height = chart.valToPos(threshold, "y", true);
  ctx.save();
  ctx.strokeStyle = colour("--faint");
  ctx.setLineDash([8, 6]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, height);
  ctx.lineTo(bbox.left + bbox.width, height);
  ctx.stroke();
  ctx.restore();
}

function drawAttention(chart) {
  const { ctx, bbox } = chart;
  const scale = devicePixelRatio || 1;
  const top = bbox.top + bbox.height + 4 * scale;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, top, bbox.width, STRIP_PIXELS * scale);
  ctx.clip();
  ctx.fillStyle = colour("--ground");
  ctx.fillRect(bbox.left, top, bbox.width, STRIP_PIXELS * scale);
  ctx.fillStyle = colour("--attention");
  const [from] = bounds();
  const columns = new Map(); // a column of pixels shows the most attended moment in it
  for (const window of windows) {
    if (window.end < from) continue;
    const slot = window.seconds / window.attention.length;
    window.attention.forEach((weight, index) => {
      const begin = window.end - window.seconds + index * slot;
      const left = Math.round(chart.valToPos(begin, "x", true));
      const right = Math.max(left + 1, Math.round(chart.valToPos(begin + slot, "x", true)));
      const share = Math.min(1, (weight * window.attention.length) / 2.5);
      for (let column = left; column < right; column += 1) columns.set(column, Math.max(columns.get(column) || 0, share));
    });
  }
  for (const [column, share] of columns) {
    ctx.globalAlpha = share;
    ctx.fillRect(column, top, 1, STRIP_PIXELS * scale);
  }
  ctx.restore();
}

function describe() {
  const says = document.getElementById("chart-says");
  if (!windows.length) {
    says.textContent = "No window has been scored yet.";
    return;
  }
  const most = windows.reduce((one, two) => (highest(two) > highest(one) ? two : one));
  const at = new Date(most.end * 1000).toISOString().slice(11, 19);
  says.textContent = `Highest score: ${highest(most).toFixed(2)} at ${at} UTC. Dashed: the threshold. Under the line, the attention: the brighter, the more a moment counted.`;
}

function showWindow(window) {
  document.querySelector(".score-value").textContent = isAway(card) ? "–" : highest(window).toFixed(2);
  document.querySelector(".score-label").textContent = Object.keys(window.scores).join(", ");
  const list = document.getElementById("window");
  const most = Math.max(...window.attention, 1e-9);
  while (list.children.length > window.attention.length) list.lastElementChild.remove();
  window.attention.forEach((weight, index) => {
    const item = list.children[index] || list.appendChild(document.createElement("li"));
    if (!item.firstElementChild) item.append(document.createElement("meter"), document.createElement("span"));
    const meter = item.querySelector("meter");
    meter.setAttribute("aria-label", `Attention of slot ${index + 1}`);
    meter.max = most;
    meter.value = weight;
    item.querySelector("span").textContent = `${Math.round(weight * 100)}%`;
    item.classList.toggle("most", weight === most);
  });
}

function onScores({ windows: told }) {
  const ours = told.filter((window) => window.camera === id);
  if (!ours.length) return;
  showWindow(ours[ours.length - 1]);
  const known = Object.keys(ours[0].scores).join() === labels.join();
  if (!plot || !known || (windows.length && ours[0].end <= windows[windows.length - 1].end)) {
    fetchHour().catch(() => {});
    return;
  }
  windows.push(...ours);
  while (windows[0].end < windows[windows.length - 1].end - 3600) windows.shift();
  plot.setData(table());
}

function onCameras({ ids }) {
  if (!ids.includes(id)) location.reload();
}

function reset() {
  fetchCameras(showCamera, onCameras).catch(() => {});
  fetchHour().catch(() => {});
  resetAlerts().catch(() => {});
}

const ranges = document.querySelector(".ranges");
ranges.hidden = false;
ranges.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  range = Number(button.dataset.seconds);
  for (const other of ranges.children) other.setAttribute("aria-pressed", String(other === button));
  if (plot) plot.setData(table());
});
addEventListener("resize", () => plot?.setSize({ width: place.clientWidth, height: 300 }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => fetchHour().catch(() => {}));

fetchHour().catch(() => {});
lookOn();
listen({ camera: showCamera, cameras: onCameras, scores: onScores, alert: onAlert, evidence: onEvidence, reset });

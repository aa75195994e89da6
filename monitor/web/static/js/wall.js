// The wall: states, pictures, score lines and the newest alerts.

import { onAlert, onEvidence, reset as resetAlerts } from "./alertlist.js";
import { cards, fetchCameras, isAway, lookOn, showCamera } from "./cameras.js";
import { fetched, listen } from "./live.js";
import { Scoreline, highest } from "./scoreline.js";

const lines = new Map([...cards].map(([id, card]) => [id, new Scoreline(card.querySelector(".scoreline"), Number(card.dataset.thresholds))]));

function show(window) {
  const line = lines.get(window.camera);
  if (!line) return;
  line.add(window);
  const card = cards.get(window.camera);
  card.querySelector(".score-value").textContent = isAway(card) ? "–" : highest(window).toFixed(2);
  card.querySelector(".score-label").textContent = Object.keys(window.scores).join(", ");
}

async function fetchScores() {
  const { cameras } = await (await fetched("/api/v1/scores?seconds=70")).json();
  for (const told of cameras) {
    lines.get(told.camera)?.windows.splice(0);
    told.ends.forEach((end, at) => show({
      camera: told.camera,
      end,
      seconds: told.window_seconds,
      scores: Object.fromEntries(told.labels.map((label, index) => [label, told.scores[at][index]])),
      attention: told.attention[at],
    }));
  }
}

function count() {
  const online = [...cards.values()].filter((card) => !isAway(card));
  document.getElementById("count").textContent = `${online.length} of ${cards.size} online`;
  listTroubled();
}

// Among many cards nobody finds the few that show nothing. What stands there already stays, and keeps the focus.
function listTroubled() {
  const troubled = [...cards.values()].filter((card) => !["online", "connecting"].includes(card.dataset.condition));
  const pieces = troubled.flatMap((card, index) => {
    const link = document.createElement("a");
    link.href = `#${card.id}`;
    link.textContent = card.querySelector("h2").textContent;
    return [index ? ", " : "Look at: ", link, ` (${card.dataset.condition})`];
  });
  const list = document.getElementById("troubled");
  list.hidden = !troubled.length;
  const text = pieces.map((piece) => piece.textContent ?? piece).join("");
  if (list.textContent !== text) list.replaceChildren(...pieces);
}

function onCamera(camera) {
  showCamera(camera);
  count();
  if (!cards.has(camera.id)) location.reload(); // a camera that a new configuration has brought
}

// A new configuration may have taken some away, also while nobody listened.
function onCameras({ ids }) {
  for (const [id, card] of [...cards]) {
    if (ids.includes(id)) continue;
    card.closest("li").remove();
    cards.delete(id);
    lines.delete(id);
  }
  count();
}

function reset() {
  fetchCameras(onCamera, onCameras).catch(() => {});
  fetchScores().catch(() => {});
  resetAlerts().catch(() => {});
}

fetchScores().catch(() => {});
lookOn();
listen({ camera: onCamera, cameras: onCameras, scores: ({ windows }) => windows.forEach(show), alert: onAlert, evidence: onEvidence, reset });
for (const change of [matchMedia("(prefers-color-scheme: dark)"), window]) {
  change.addEventListener(change === window ? "resize" : "change", () => lines.forEach((line) => line.redraw()));
}

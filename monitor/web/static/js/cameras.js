// The state and the pictures of the cameras on a page.

import { fetched } from "./live.js";

const LOOK_MILLISECONDS = 2000;

export const cards = new Map([...document.querySelectorAll(".camera")].map((card) => [card.dataset.camera, card]));

// No pictures come, so the newest score is of the past.
export const isAway = (card) => ["offline", "refused", "connecting"].includes(card.dataset.condition);

export function showCamera(camera) {
  const card = cards.get(camera.id);
  if (!card) return;
  card.dataset.condition = camera.condition;
  card.toggleAttribute("data-active", camera.active_events > 0);
  const place = cards.size > 1 ? card : document;
  for (const text of place.querySelectorAll(".condition-text")) text.textContent = camera.condition;
  if (isAway(card)) place.querySelector(".score-value").textContent = "–";
  const since = document.querySelector("time.since");
  if (since && camera.since !== null) {
    since.dateTime = new Date(camera.since * 1000).toISOString();
    since.textContent = since.dateTime.slice(0, 19).replace("T", " ");
  }
  card.querySelector(".detail").textContent = camera.detail;
}

// What the stream told while this page did not listen.
export async function fetchCameras(onCamera, onCameras) {
  const { cameras } = await (await fetched("/api/v1/cameras")).json();
  onCameras({ ids: cameras.map((camera) => camera.id) });
  cameras.forEach(onCamera);
}

// Only pictures that can be seen are asked for, one after another; a camera that is away keeps its last one.
export function lookOn() {
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target) : seen.delete(entry.target);
  });
  for (const card of cards.values()) watcher.observe(card);
  setInterval(() => {
    if (document.visibilityState !== "visible") return;
    for (const card of seen) renew(card);
  }, LOOK_MILLISECONDS);
}

async function renew(card) {
  if (card.dataset.busy) return;
  card.dataset.busy = "yes";
  try {
    const answer = await fetch(`/api/v1/cameras/${card.dataset.camera}/picture.jpg`);
    if (answer.status !== 200) return;
    const image = card.querySelector(".picture img");
    const before = image.src;
    image.src = URL.createObjectURL(await answer.blob());
    await image.decode();
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  } catch {
    // the server is away, which the page says already; the next look tries again
  } finally {
    delete card.dataset.busy;
  }
}

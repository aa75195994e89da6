// A list of alerts that grows at its head and keeps its cards true: each is made by the server, asked for by its id.

import { announce, fetched } from "./live.js";

const list = document.getElementById("alerts");

export const onAlert = (told) => show(told);
export const onEvidence = (told) => show(told);

function concerns(told) {
  const { camera, label, only } = list.dataset;
  if (only) return only === told.alert_id;
  return (!camera || camera === told.camera) && (!label || !told.label || label === told.label);
}

const underWay = new Map();

// One card is fetched once at a time; what comes meanwhile asks for it once more.
async function show(told) {
  if (!concerns(told)) return;
  if (underWay.has(told.alert_id)) {
    underWay.set(told.alert_id, told);
    return;
  }
  underWay.set(told.alert_id, null);
  try {
    await renew(told);
  } catch {
    // it is shown with the next message on it, or when the connection is back
  }
  const again = underWay.get(told.alert_id);
  underWay.delete(told.alert_id);
  if (again) show(again);
}

async function renew(told) {
  const old = list.querySelector(`[data-alert="${CSS.escape(told.alert_id)}"]`);
  const isNew = !old;
  if (isNew && (told.kind || !("grows" in list.dataset || "small" in list.dataset))) return;
  const answer = await fetched(`/alerts/${told.alert_id}/card${"small" in list.dataset ? "?small" : ""}`);
  const card = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-alert]");
  if (!card) return;
  if (isNew) {
    card.classList.add("arrived");
    list.prepend(card);
    while (list.children.length > Number(list.dataset.most)) list.lastElementChild.remove();
    document.getElementById("no-alerts").hidden = true;
    announce(card.querySelector("h2, .what").textContent.trim());
  } else {
    replace(old, card);
  }
}

// A clip that somebody plays, and whatever has the focus, is left alone.
function replace(old, card) {
  const playing = old.querySelector("video");
  const focused = old.contains(document.activeElement);
  if (playing && (!playing.paused || playing.currentTime > 0)) {
    for (const part of [".phase", "dl"]) {
      const place = old.querySelector(part);
      if (place) place.replaceWith(card.querySelector(part));
    }
    return;
  }
  old.replaceWith(card);
  if (focused) card.querySelector("a, video")?.focus();
}

// After an interruption the whole list is fetched anew, if nobody watches a clip in it by the time it has come.
export async function reset() {
  const answer = await fetched(location.href);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("alerts");
  if (!fresh || [...list.querySelectorAll("video")].some((video) => !video.paused)) return;
  list.replaceChildren(...fresh.children);
  document.getElementById("no-alerts")?.toggleAttribute("hidden", list.children.length > 0);
}

// The stream of changes: one EventSource a page. Handlers by kind; `reset` asks a page to fetch everything anew.

const shown = document.getElementById("live");

function say(text, lost) {
  shown.hidden = false;
  if (shown.textContent !== text) shown.textContent = text;
  shown.toggleAttribute("data-lost", lost);
}

export function listen(handlers) {
  const source = new EventSource("/api/v1/events?after=" + encodeURIComponent(document.body.dataset.cursor));
  let failed = false;
  source.addEventListener("open", () => {
    say("Live", false);
    if (failed && handlers.reset) handlers.reset();
    failed = false;
  });
  source.addEventListener("error", () => {
    failed = true;
    say("Connection lost – trying again", true);
    if (source.readyState === EventSource.CLOSED) askAgain(handlers);
  });
  for (const [kind, handle] of Object.entries({ monitor: showMonitor, ...handlers })) {
    source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  }
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

// The browser gives up where the answer is no stream: the session is over, or a proxy answers for us.
async function askAgain(handlers) {
  try {
    const answer = await fetch("/api/v1/monitor");
    if (answer.status === 401) {
      location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
      return;
    }
  } catch { /* the server is away; it is tried again below */ }
  setTimeout(() => listen(handlers), 3000);
}

function showMonitor(monitor) {
  const trouble = document.getElementById("trouble");
  trouble.hidden = !monitor.trouble;
  if (trouble.textContent !== monitor.trouble) trouble.textContent = monitor.trouble;
  for (const [id, text] of [["kafka", monitor.kafka], ["waiting", monitor.waiting_alerts]]) {
    const place = document.getElementById(id);
    if (place) place.textContent = text;
  }
}

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

export async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer;
}

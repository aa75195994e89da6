// A minute of scores as a line, the threshold dashed, and under it the attention: the brighter, the more it counted.

const SECONDS = 60;
const STRIP = 0.16;

export class Scoreline {
  constructor(canvas, threshold) {
    this.canvas = canvas;
    this.threshold = threshold;
    this.windows = [];
    this.drawn = false;
  }

  add(window) {
    const last = this.windows[this.windows.length - 1];
    if (last && window.end <= last.end) this.windows = [];
    this.windows.push(window);
    while (this.windows[0].end < window.end - SECONDS - 10) this.windows.shift();
    this.redraw();
  }

  redraw() {
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => { this.drawn = false; this.draw(); });
  }

  draw() {
    const { canvas, windows } = this;
    const scale = devicePixelRatio || 1;
    const box = getComputedStyle(canvas);
    const width = canvas.clientWidth - parseFloat(box.paddingLeft) - parseFloat(box.paddingRight);
    const height = canvas.clientHeight - parseFloat(box.paddingTop) - parseFloat(box.paddingBottom);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    if (!windows.length) return;
    const colour = (name) => box.getPropertyValue(name).trim();
    const now = windows[windows.length - 1].end;
    const x = (time) => width * (1 - (now - time) / SECONDS);
    const bottom = height * (1 - STRIP) - 4;
    const y = (score) => 2 + (bottom - 3) * (1 - score);
    drawThreshold(pen, y(this.threshold), width, colour("--faint"));
    drawLine(pen, windows, x, y, colour("--curve"));
    drawAttention(pen, windows, x, { top: height * (1 - STRIP), height: height * STRIP, colour: colour("--attention"), ground: colour("--ground"), width });
    canvas.setAttribute("aria-label", `Score of the last minute: now ${highest(windows[windows.length - 1]).toFixed(2)}, at most ${Math.max(...windows.map(highest)).toFixed(2)}, threshold ${this.threshold.toFixed(2)}`);
  }
}

export function highest(window) {
  return Math.max(0, ...Object.values(window.scores));
}

function drawThreshold(pen, height, width, colour) {
  pen.strokeStyle = colour;
  pen.setLineDash([5, 4]);
  pen.beginPath();
  pen.moveTo(0, height);
  pen.lineTo(width, height);
  pen.stroke();
  pen.setLineDash([]);
}

function drawLine(pen, windows, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.lineJoin = "round";
  pen.beginPath();
  let before = -Infinity;
  for (const window of windows) {
    const gap = window.end - before > 3 * window.seconds;
    pen[gap ? "moveTo" : "lineTo"](x(window.end), y(highest(window)));
    before = window.end;
  }
  pen.stroke();
}

// A moment lies in several windows; it is drawn with the mean of what it counted in them.
function drawAttention(pen, windows, x, strip) {
  pen.fillStyle = strip.ground;
  pen.fillRect(0, strip.top, strip.width, strip.height);
  const moments = new Map();
  let slot = 0.25;
  for (const window of windows) {
    slot = window.seconds / window.attention.length;
    window.attention.forEach((weight, index) => {
      const moment = Math.round((window.end - window.seconds) / slot) + index;
      const [sum, count] = moments.get(moment) || [0, 0];
      moments.set(moment, [sum + weight * window.attention.length, count + 1]);
    });
  }
  pen.fillStyle = strip.colour;
  for (const [moment, [sum, count]] of moments) {
    pen.globalAlpha = Math.min(1, sum / count / 2.5);
    const left = x(moment * slot);
    pen.fillRect(left, strip.top, Math.max(1, x((moment + 1) * slot) - left - 0.5), strip.height);
  }
  pen.globalAlpha = 1;
}

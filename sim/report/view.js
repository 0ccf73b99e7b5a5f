'use strict';
// What the page shows: the data, the visible time, and what is chosen. Times are nanoseconds.
const data = JSON.parse(document.getElementById('data').textContent);
const el = id => document.getElementById(id);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const second = 1e9, shortest = 10e3; // the most that can be zoomed in: 10 µs

const events = data.events.map(([at, lane, kind, text], id) => ({ id, at, lane, kind: data.eventKinds[kind], text }));
const order = ['operator', 'node', 'client', 'guard', 'storage'];
const laneName = i => data.lanes[i] ? data.lanes[i].name : '';
const chosenOf = { event: -1 };
const seen = { from: 0, to: data.simulated };

// exact writes an instant with all its digits.
function exact(ns) {
  const sign = ns < 0 ? '-' : '';
  ns = Math.abs(Math.round(ns));
  const minutes = Math.floor(ns / (60 * second)), rest = ns - minutes * 60 * second;
  let text = String(Math.floor(rest / second));
  if (minutes) text = text.padStart(2, '0');
  let fraction = String(rest % second).padStart(9, '0').replace(/0+$/, '');
  if (fraction.length < 3) fraction = fraction.padEnd(3, '0');
  const hours = Math.floor(minutes / 60);
  return sign + (hours ? hours + 'h' + String(minutes % 60).padStart(2, '0') + 'm' : minutes ? minutes + 'm' : '') + text + '.' + fraction + 's';
}

// span writes how long something takes.
function span(ns) {
  for (const [unit, name] of [[60 * second, 'min'], [second, 's'], [1e6, 'ms'], [1e3, 'µs']]) {
    if (ns >= unit) return String(+(ns / unit).toPrecision(4)) + ' ' + name;
  }
  return Math.round(ns) + ' ns';
}

// tickTime writes an instant of the axis, where ticks are step apart.
function tickTime(ns, step) {
  const digits = step >= second ? 0 : clamp(Math.ceil(-Math.log10(step / second)), 1, 9);
  const minutes = Math.floor(ns / (60 * second) + 1e-12), rest = Math.max(0, ns - minutes * 60 * second) / second;
  const text = rest.toFixed(digits);
  return minutes ? minutes + 'm' + (rest < 10 ? '0' : '') + text + 's' : text + 's';
}

// firstAt is the place of the first of a sorted list whose key is not below.
function firstAt(list, key, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(list[middle]) < value) low = middle + 1; else high = middle;
  }
  return low;
}

// show makes a stretch of time the visible one.
function show(from, to) {
  const width = clamp(to - from, shortest, data.simulated);
  seen.from = clamp(from, 0, data.simulated - width);
  seen.to = seen.from + width;
  redraw();
}
function zoom(factor, around = (seen.from + seen.to) / 2) {
  const width = clamp((seen.to - seen.from) * factor, shortest, data.simulated);
  show(around - (around - seen.from) * width / (seen.to - seen.from), around + (seen.to - around) * width / (seen.to - seen.from));
}
function pan(part) {
  const by = (seen.to - seen.from) * part;
  show(clamp(seen.from + by, 0, data.simulated - (seen.to - seen.from)), seen.to + by - Math.max(0, seen.to + by - data.simulated));
}
// centre brings an instant into the middle; from afar it also comes nearer.
function centre(at) {
  const width = Math.min(seen.to - seen.from, 20 * second);
  show(at - width / 2, at + width / 2);
}

let pending = false;
function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

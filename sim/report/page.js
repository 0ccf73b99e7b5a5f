// Head, controls and what they do.
const broken = data.broken.length > 0;
document.querySelector('header').className = broken ? 'bad' : 'good';
el('mark').textContent = broken ? '✕' : '✓';
el('outcome').textContent = broken ? 'Broken: ' + data.broken.join(', ') : 'Clean';
el('name').textContent = data.title;
el('name').title = data.title;
for (const [name, value] of [['seed', data.seed], ['hash', data.hash], ['simulated', exact(data.simulated)], ['events', events.length.toLocaleString('en')]]) {
  const pair = document.createElement('div'), term = document.createElement('dt'), text = document.createElement('dd');
  term.textContent = name;
  text.textContent = value;
  pair.append(term, text);
  el('facts').append(pair);
}
el('command').textContent = data.command;
el('command').title = data.command;
el('replay').hidden = !data.command;
el('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(data.command);
  } catch {
    // Pages of files may not have a clipboard.
    getSelection().selectAllChildren(el('command'));
    document.execCommand('copy');
  }
  el('copy').textContent = 'Copied';
  el('live').textContent = 'copied';
  setTimeout(() => { el('copy').textContent = 'Copy'; }, 1500);
});
let violated = -1;
function showViolation(i) {
  const v = data.violations[violated = (i + data.violations.length) % data.violations.length];
  if (!v) return;
  const id = nearest(v.at, -1);
  if (id >= 0) choose(id, false);
  centre(v.at);
  el('live').textContent = v.invariant + ' is broken at ' + exact(v.at) + ': ' + v.text;
}
// beginAtViolation opens the page where the first promise broke: nearer than the whole of a long run, and with the resource in
// sight that two believed in.
function beginAtViolation() {
  const v = data.violations[0], id = nearest(v.at, -1);
  if (id >= 0) choose(id, false);
  if (data.simulated > 180 * second) show(v.at - 45 * second, v.at + 45 * second);
  const row = rows.find(r => r.crossed && r.crossed.some(o => Math.abs(o.from - v.at) < second));
  if (row && row.until > scroll.clientHeight) scroll.scrollTop = Math.min(row.y, row.until + 8 - scroll.clientHeight);
}
data.violations.forEach((v, i) => {
  const item = document.createElement('li'), button = document.createElement('button');
  button.type = 'button';
  for (const [tag, name, text] of [['b', '', v.invariant], ['span', 'when', exact(v.at)], ['span', '', v.text]]) {
    const part = document.createElement(tag);
    part.className = name;
    part.textContent = text;
    button.append(part);
  }
  button.addEventListener('click', () => showViolation(i));
  item.append(button);
  el('violations').append(item);
});

function legend() {
  el('legend').replaceChildren();
  const add = (text, paint) => {
    const item = document.createElement('li'), canvas = document.createElement('canvas');
    item.append(canvas, text);
    el('legend').append(item);
    paint(prepare(canvas, 18, 12));
  };
  const used = new Set(data.bands.map(b => b[1]));
  data.bandKinds.forEach((kind, k) => { if (used.has(k)) add(kind === 'clock' ? 'clock jump' : kind, g => kind === 'clock' ? band(g, kind, 9, 0, 0, 12) : kind === 'disk' ? band(g, kind, 0, 4, 18, 16) : kind === 'cut' ? band(g, kind, 0, 0, 18, 14) : kind === 'coordinator' || kind === 'leader' ? band(g, kind, 0, -3, 18, 12) : band(g, kind, 0, 0, 18, 12)); });
  if (!data.resources.length) return;
  add('belief', g => { g.fillStyle = colours.belief; g.fillRect(0, 1, 9, 10); g.fillStyle = colours.belief2; g.fillRect(9, 1, 9, 10); });
  add('accepted token', g => { g.strokeStyle = colours.accepted; g.lineWidth = 1.5; g.beginPath(); g.moveTo(0, 10); g.lineTo(9, 10); g.lineTo(9, 3); g.lineTo(18, 3); g.stroke(); });
  add('refused write', g => { g.strokeStyle = colours.refused; g.lineWidth = 2; g.beginPath(); g.moveTo(5, 2); g.lineTo(13, 10); g.moveTo(13, 2); g.lineTo(5, 10); g.stroke(); });
  if (rows.some(r => r.stairs && r.resource.writes.some(w => w[3] && r.stairs.some(s => s[0] < w[2] && s[1] > w[1])))) {
    add('stale but accepted', g => { g.strokeStyle = colours.bad; g.lineWidth = 2; g.beginPath(); g.arc(9, 6, 4, 0, 7); g.stroke(); });
  }
  if (rows.some(r => r.crossed && r.crossed.length)) add('two believe', g => { g.strokeStyle = colours.bad; g.strokeRect(.5, .5, 17, 11); hatch(g, 0, 0, 18, 12, colours.bad, 6, true); });
}

const counts = {};
for (const e of events) counts[e.kind] = (counts[e.kind] || 0) + 1;
for (const kind of data.eventKinds.filter(k => counts[k])) {
  const label = document.createElement('label'), box = document.createElement('input');
  Object.assign(box, { type: 'checkbox', value: kind, checked: true });
  box.addEventListener('change', () => { if (box.checked) kindsShown.add(kind); else kindsShown.delete(kind); filter(); });
  label.append(box, kind + ' ' + counts[kind].toLocaleString('en'));
  el('kinds').append(label);
}
el('actor').append(new Option('all', ''));
data.lanes.forEach((l, i) => el('actor').append(new Option(l.name + (l.region ? ' (' + l.region + ')' : ''), i)));
el('actor').addEventListener('change', filter);
el('text').addEventListener('input', filter);
el('filter').addEventListener('submit', event => event.preventDefault());
list.addEventListener('scroll', () => fill(false));
list.addEventListener('keydown', event => {
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  next(by);
});

el('in').addEventListener('click', () => zoom(.5));
el('out').addEventListener('click', () => zoom(2));
el('fit').addEventListener('click', () => show(0, data.simulated));
chart.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowLeft: () => pan(-.1), ArrowRight: () => pan(.1), PageUp: () => pan(-.9), PageDown: () => pan(.9),
    ArrowUp: () => { scroll.scrollTop -= 40; }, ArrowDown: () => { scroll.scrollTop += 40; },
    '+': () => zoom(.5), '=': () => zoom(.5), '-': () => zoom(2), 0: () => show(0, data.simulated), Home: () => show(0, data.simulated),
    n: () => next(1), p: () => next(-1), v: () => showViolation(violated + 1),
  };
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
chart.addEventListener('wheel', event => {
  if (event.offsetX < gutter) return; // over the names it scrolls
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return pan((event.deltaX || event.deltaY) / 800);
  zoom(Math.exp(clamp(event.deltaY, -200, 200) / 300), seen.from + (event.offsetX - gutter) / (chart.clientWidth - gutter) * (seen.to - seen.from));
}, { passive: false });

let drag = null;
chart.addEventListener('pointerdown', event => {
  if (event.button !== 0) return;
  chart.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, y: event.clientY, from: seen.from, to: seen.to, top: scroll.scrollTop, moved: false };
});
chart.addEventListener('pointermove', event => {
  pointer = { x: event.offsetX, y: event.offsetY };
  if (drag) {
    drag.moved = drag.moved || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4;
    if (drag.moved) {
      chart.classList.add('dragging');
      const by = clamp((drag.x - event.clientX) / (chart.clientWidth - gutter) * (drag.to - drag.from), -drag.from, data.simulated - drag.to);
      scroll.scrollTop = drag.top + drag.y - event.clientY;
      show(drag.from + by, drag.to + by);
    }
  }
  tell(event);
  redraw();
});
chart.addEventListener('pointerup', event => {
  const at = drag && !drag.moved && under(event.offsetX, event.offsetY);
  drag = null;
  chart.classList.remove('dragging');
  if (!at) return;
  const id = at.event === undefined ? nearest(at.at, at.lane) : at.event;
  if (id >= 0) choose(id, false);
});
chart.addEventListener('pointercancel', () => { drag = null; });
chart.addEventListener('pointerleave', () => { pointer = null; el('tip').hidden = true; redraw(); });

// under finds the smallest thing at a place: what lies on top of others.
function under(x, y) {
  let best = null;
  for (const h of hits) {
    if (x < gutter || x < h.x || x > h.x + h.w || y < h.y || y > h.y + h.h) continue;
    if (!best || h.w * h.h <= best.w * best.h) best = h;
  }
  return best;
}
function tell(event) {
  const at = drag && drag.moved ? null : under(event.offsetX, event.offsetY), tip = el('tip');
  chart.classList.toggle('thing', Boolean(at));
  tip.hidden = !at;
  if (!at) return;
  tip.textContent = at.text;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';
  tip.style.top = (event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + 'px';
}

const map = el('map');
function moveMap(event) {
  if (!(event.buttons & 1)) return;
  const at = (event.offsetX - gutter) / (map.clientWidth - gutter - 12) * data.simulated, half = (seen.to - seen.from) / 2;
  show(at - half, at + half);
}
map.addEventListener('pointerdown', event => { map.setPointerCapture(event.pointerId); moveMap(event); });
map.addEventListener('pointermove', moveMap);

scroll.addEventListener('scroll', redraw);
const resized = new ResizeObserver(() => { fill(false); redraw(); });
for (const part of [scroll, list, map]) resized.observe(part);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColours(); legend(); redraw(); });
function fromHash() {
  const found = /^#e(\d+)$/.exec(location.hash);
  if (found) choose(Number(found[1]), true);
}
addEventListener('hashchange', fromHash);
readColours();
layOut();
legend();
filter();
draw();
fromHash();
if (chosenOf.event < 0 && data.violations.length) beginAtViolation();

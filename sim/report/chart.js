// The chart: rows of lanes and of resources, of which only what is visible is drawn.
const gutter = 176, chart = el('chart'), scroll = el('scroll');
const bandText = { down: 'down', paused: 'paused', cut: 'links cut or clogged', disk: 'disk slow, full or lying', leader: 'raft leader', coordinator: 'coordinator', clock: 'clock jumped' };
const rows = [];
let height = 0, colours = {}, hits = [];

function addRow(row) {
  row.y = height;
  height += row.h;
  rows.push(row);
  return row;
}

// overlaps finds when two holders believe in the same resource.
function overlaps(beliefs) {
  const found = [];
  let active = [];
  for (const b of beliefs) {
    active = active.filter(a => a[3] > b[2]);
    for (const a of active) if (a[0] !== b[0]) found.push({ from: b[2], to: Math.min(a[3], b[3]), lanes: [a[0], b[0]] });
    active.push(b);
  }
  return found;
}

function layOut() {
  const titles = { operator: '', node: 'Nodes', client: 'Clients', guard: 'Guards', storage: '' };
  for (const kind of order) {
    // What storage does is drawn below each resource.
    const lanes = data.lanes.map((l, i) => [l, i]).filter(([l, i]) => l.kind === kind && (kind !== 'storage' || events.some(e => e.lane === i)));
    if (lanes.length && titles[kind]) addRow({ type: 'title', h: 20, text: titles[kind] });
    for (const [l, i] of lanes) {
      addRow({ type: 'lane', h: kind === 'node' ? 29 : kind === 'operator' ? 25 : 21, lane: i, told: kind === 'operator', name: l.name, note: l.region,
        bands: data.bands.filter(b => b[0] === i).sort((a, b) => a[2] - b[2]), events: events.filter(e => e.lane === i) });
    }
  }
  data.resources.forEach((r, index) => {
    const crossed = overlaps(r.beliefs);
    const first = addRow({ type: 'title', h: 22, text: 'Resource ' + r.name, index, bad: crossed.length ? 'believed by two at once' : '' });
    for (const lane of [...new Set(r.beliefs.map(b => b[0]))].sort((a, b) => a - b)) {
      addRow({ type: 'belief', h: 15, name: laneName(lane), note: 'believes', lane, resource: r, list: r.beliefs.filter(b => b[0] === lane) });
    }
    first.believed = height;
    if (r.writes.length) {
      let top = -1;
      const stairs = [];
      for (const w of r.writes) if (w[3] && w[1] > top) stairs.push([w[2], top = w[1]]);
      addRow({ type: 'stairs', h: 62, name: 'storage', note: 'accepted tokens', resource: r, stairs });
    }
    first.until = height;
    first.crossed = crossed;
    addRow({ type: 'gap', h: 8 });
  });
  el('space').style.height = height + 'px';
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['page', 'panel', 'ink', 'faint', 'line', 'stripe', 'focus', 'coordinator', 'leader', 'down', 'paused', 'cut', 'disk', 'clock', 'belief', 'belief2', 'on-solid', 'accepted', 'refused', 'bad']) {
    colours[name] = style.getPropertyValue('--' + name).trim();
  }
}

// prepare sizes a canvas for the screen's pixels.
function prepare(canvas, width, high) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(high * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(high * ratio);
    canvas.style.height = high + 'px';
  }
  const g = canvas.getContext('2d');
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, high);
  g.font = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  g.textBaseline = 'middle';
  return g;
}

// hatch fills with stripes, so that a band is known without its colour.
function hatch(g, x, y, w, h, colour, gap, back) {
  g.save();
  g.beginPath();
  g.rect(x, y, w, h);
  g.clip();
  g.strokeStyle = colour;
  g.lineWidth = 1.5;
  g.beginPath();
  for (let i = Math.floor((x - h) / gap) * gap; i < x + w + h; i += gap) {
    g.moveTo(back ? i + h : i, y);
    g.lineTo(back ? i : i + h, y + h);
  }
  g.stroke();
  g.restore();
}

// band draws one, in the way by which the legend knows it.
function band(g, kind, x, y, w, h) {
  w = Math.max(w, 1.5);
  const c = colours[kind];
  g.fillStyle = c;
  switch (kind) {
    case 'coordinator': g.fillRect(x, y + 3, w, 12); break;
    case 'leader': g.fillRect(x, y + 3, w, 12); break;
    case 'down': g.globalAlpha = .45; g.fillRect(x, y + 1, w, h - 2); g.globalAlpha = 1; g.fillRect(x, y + h / 2 - 1, w, 2); break;
    case 'paused': g.globalAlpha = .18; g.fillRect(x, y + 1, w, h - 2); g.globalAlpha = 1; hatch(g, x, y + 1, w, h - 2, c, 7); break;
    case 'cut': g.fillRect(x, y + h - 6, w, 4); break;
    case 'disk': for (let i = x; i < x + w; i += 6) g.fillRect(i, y + h - 12, Math.min(4, x + w - i), 4); break;
    case 'clock':
      g.beginPath(); g.moveTo(x, y + h / 2 - 6); g.lineTo(x + 6, y + h / 2); g.lineTo(x, y + h / 2 + 6); g.lineTo(x - 6, y + h / 2); g.closePath();
      g.fill(); g.strokeStyle = colours.ink; g.lineWidth = 1; g.stroke();
  }
}

function draw() {
  const width = scroll.clientWidth, high = scroll.clientHeight, top = scroll.scrollTop, plot = width - gutter;
  const g = prepare(chart, width, high);
  const x = t => gutter + (t - seen.from) / (seen.to - seen.from) * plot;
  const visible = (from, to) => to >= seen.from && from <= seen.to;
  const cover = (from, to) => { const a = Math.max(x(from), gutter); return [a, Math.min(x(to), width) - a]; };
  hits = [];
  const hit = (hx, hy, w, h, at, lane, text) => hits.push({ x: hx, y: hy, w, h, at, lane, text });
  const context = { g, x, visible, cover, hit, width, high };
  drawGrid(context);
  g.save();
  g.beginPath();
  g.rect(gutter, 0, plot, high);
  g.clip();
  for (const row of rows) {
    const y = row.y - top;
    if (row.type === 'title' && row.until && y < high && row.until > top) drawCrossed(context, row, y, row.believed - top, row.until - top);
    if (y > high || y + row.h < 0) continue;
    if (row.type === 'lane') drawLane(context, row, y);
    if (row.type === 'belief') drawBeliefs(context, row, y);
    if (row.type === 'stairs') drawStairs(context, row, y);
  }
  drawViolations(context);
  drawChosen(context);
  g.restore();
  drawLabels(context, top);
  drawAxis(width, plot);
  drawMap(width);
  el('window').textContent = exact(seen.from) + ' – ' + exact(seen.to) + ' (' + span(seen.to - seen.from) + ')';
}

// stepOf is how far apart the ticks of the axis are.
function stepOf(plot) {
  const wanted = (seen.to - seen.from) / Math.max(2, plot / 110);
  for (let unit = 1e3; ; unit *= 10) {
    for (const n of unit === 1e10 ? [1] : [1, 2, 5]) if (unit * n >= wanted && unit * n < 1e10) return unit * n;
    if (unit >= 1e10) break;
  }
  for (const n of [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400]) if (n * second >= wanted) return n * second;
  return 8 * 3600 * second;
}

function drawGrid({ g, x, width, high }) {
  const step = stepOf(width - gutter);
  g.strokeStyle = colours.line;
  g.globalAlpha = .6;
  g.lineWidth = 1;
  g.beginPath();
  for (let t = Math.ceil(seen.from / step) * step; t <= seen.to; t += step) {
    const at = Math.round(x(t)) + .5;
    g.moveTo(at, 0);
    g.lineTo(at, high);
  }
  g.stroke();
  g.globalAlpha = 1;
}

function drawLane({ g, x, visible, cover, hit }, row, y) {
  const drawn = ['down', 'paused', 'leader', 'coordinator', 'disk', 'cut', 'clock'];
  for (const kind of drawn) {
    let last = -9;
    for (const [, k, from, to, text] of row.bands) {
      if (data.bandKinds[k] !== kind || !visible(from, to)) continue;
      const [left, w] = cover(from, to);
      if (w < 1 && left - last < 1) continue;
      last = left + Math.max(w, 1);
      band(g, kind, left, y, w, row.h);
      const label = kind === 'coordinator' ? text || bandText[kind] : kind === 'down' || kind === 'paused' ? kind : '';
      if (label && w > g.measureText(label).width + 10) {
        const role = kind === 'coordinator';
        g.fillStyle = kind === 'coordinator' ? colours['on-solid'] : colours.ink;
        if (!role) { g.fillStyle = colours.page; g.fillRect(left + 3, y + row.h / 2 - 7, g.measureText(label).width + 6, 14); g.fillStyle = colours.ink; }
        g.fillText(label, left + 6, role ? y + 9.5 : y + row.h / 2 + .5);
      }
      const when = kind === 'clock' ? exact(from) : exact(from) + ' – ' + (to >= data.simulated ? 'the end' : exact(to)) + ' (' + span(to - from) + ')';
      const about = row.name + ' ' + bandText[kind] + (text && text !== bandText[kind] ? ': ' + text : '') + '\n' + when;
      const role = kind === 'leader' || kind === 'coordinator';
      const [above, tall] = role ? [y + 3, 12] : kind === 'cut' ? [y + row.h - 7, 6] : kind === 'disk' ? [y + row.h - 13, 6] : [y, row.h];
      hit(kind === 'clock' ? left - 6 : left, above, kind === 'clock' ? 12 : Math.max(w, 2), tall, from, row.lane, about);
    }
  }
  if (row.told) drawTold({ g, x }, row, y);
  // Marks of events: one a pixel is enough.
  let last = -9;
  for (let i = firstAt(row.events, e => e.at, seen.from); i < row.events.length && row.events[i].at <= seen.to; i++) {
    const e = row.events[i], at = x(e.at);
    if (at - last < 1.5) continue;
    last = at;
    const strong = e.kind === 'fault' || e.kind === 'operator' || e.kind === 'role';
    g.fillStyle = strong ? colours.ink : colours.faint;
    g.fillRect(at - (strong ? .75 : .5), y + row.h - (strong ? 9 : 6), strong ? 1.5 : 1, strong ? 8 : 5);
    hit(at - 3, y + row.h - 9, 6, 9, e.at, e.lane, exact(e.at) + '  ' + e.kind + '\n' + e.text);
    hits[hits.length - 1].event = e.id;
  }
}

// drawTold writes what was done to the run beside its instant, where there is room.
function drawTold({ g, x }, row, y) {
  let free = gutter;
  g.fillStyle = colours.ink;
  for (const e of row.events) {
    if (e.kind !== 'fault' && e.kind !== 'operator' || e.at < seen.from || e.at > seen.to) continue;
    const text = e.text.replace(/^(fault|operator): (at \S+ (for \S+ )?)?/, ''), w = g.measureText(text).width;
    const at = Math.min(x(e.at) + 3, chart.clientWidth - w - 4);
    if (at < free) continue;
    g.fillText(text, at, y + 8.5);
    free = at + w + 8;
  }
}

function drawBeliefs({ g, visible, cover, hit }, row, y) {
  let last = -9;
  for (const [, token, from, to] of row.list) {
    if (!visible(from, to)) continue;
    const [left, w] = cover(from, to);
    if (w < 1 && left - last < 1) continue;
    last = left + Math.max(w, 1);
    const dark = token % 2 === 0;
    g.fillStyle = dark ? colours.belief : colours.belief2;
    g.fillRect(left, y + 2, Math.max(w, 1.5), row.h - 4);
    const name = row.resource.tokens[token];
    if (w > g.measureText(name).width + 8) {
      g.fillStyle = dark ? colours['on-solid'] : colours.ink;
      g.fillText(name, left + 4, y + row.h / 2 + .5);
    }
    hit(left, y + 1, Math.max(w, 3), row.h - 2, from, row.lane,
      row.name + ' believes to hold ' + row.resource.name + ' under ' + name + '\n' + exact(from) + ' – ' + exact(to) + ' (' + span(to - from) + ')');
  }
}

function drawCrossed({ g, visible, cover, hit }, row, y, believed, bottom) {
  for (const o of row.crossed) {
    if (!visible(o.from, o.to)) continue;
    const [left, w] = cover(o.from, o.to), wide = Math.max(w, 3);
    g.globalAlpha = .13;
    g.fillStyle = colours.bad;
    g.fillRect(left, y + 20, wide, bottom - y - 20);
    g.globalAlpha = 1;
    hatch(g, left, y + 20, wide, believed - y - 20, colours.bad, 8, true);
    g.strokeStyle = colours.bad;
    g.lineWidth = 1;
    if (w > 4) g.strokeRect(left + .5, y + 20.5, wide - 1, bottom - y - 21);
    hit(left, y + 8, Math.max(wide, 6), 13, o.from, o.lanes[1],
      laneName(o.lanes[0]) + ' and ' + laneName(o.lanes[1]) + ' both believe to hold it\n' + exact(o.from) + ' – ' + exact(o.to) + ' (' + span(o.to - o.from) + ')');
    g.fillStyle = colours.bad;
    g.beginPath();
    g.moveTo(left + wide / 2 - 6, y + 11); g.lineTo(left + wide / 2 + 6, y + 11); g.lineTo(left + wide / 2, y + 19);
    g.fill();
  }
}

// drawStairs draws tokens upward, over the range that is visible: a step up for each newer one.
function drawStairs({ g, x, visible, hit, width }, row, y) {
  const { writes, tokens } = row.resource, first = firstAt(writes, w => w[2], seen.from);
  const began = firstAt(row.stairs, s => s[0], seen.from) - 1;
  let low = began >= 0 ? row.stairs[began][1] : tokens.length, high = low === tokens.length ? -1 : low, end = first;
  for (; end < writes.length && writes[end][2] <= seen.to; end++) {
    low = Math.min(low, writes[end][1]);
    high = Math.max(high, writes[end][1]);
  }
  if (high < low) return;
  const level = token => y + row.h - 8 - (token - low) / Math.max(3, high - low) * (row.h - 18);
  g.strokeStyle = colours.accepted;
  g.lineWidth = 1.5;
  g.beginPath();
  let now = began >= 0 ? level(row.stairs[began][1]) : null, started = now !== null;
  if (started) g.moveTo(gutter, now);
  for (let i = began + 1; i < row.stairs.length && row.stairs[i][0] <= seen.to; i++) {
    const at = x(row.stairs[i][0]), next = level(row.stairs[i][1]);
    if (started) g.lineTo(at, now); else g.moveTo(at, next);
    g.lineTo(at, next);
    [now, started] = [next, true];
  }
  if (started) g.lineTo(x(Math.min(seen.to, data.simulated)), now);
  g.stroke();
  g.fillStyle = colours.accepted;
  for (let i = Math.max(0, began); i < row.stairs.length && row.stairs[i][0] <= seen.to; i++) {
    const left = Math.max(gutter, x(row.stairs[i][0])), right = i + 1 < row.stairs.length ? x(row.stairs[i + 1][0]) : width;
    const name = tokens[row.stairs[i][1]];
    if (right - left > g.measureText(name).width + 12) g.fillText(name, left + 5, level(row.stairs[i][1]) - 8);
  }
  let last = -9;
  const refused = [], wrong = [];
  let step = began;
  for (let i = first; i < end; i++) {
    const [lane, token, at, accepted, floor] = writes[i], px = x(at), py = level(token);
    const text = laneName(lane) + (accepted ? ' wrote under ' : ' was refused under ') + tokens[token] +
      (floor >= 0 ? ', the newest seen before was ' + tokens[floor] : '') + '\n' + exact(at);
    if (!accepted) { refused.push([px, py]); hit(px - 6, py - 6, 12, 12, at, lane, text); continue; }
    while (step + 1 < row.stairs.length && row.stairs[step + 1][0] <= at) step++;
    if (step >= 0 && token < row.stairs[step][1]) { wrong.push([px, py]); hit(px - 6, py - 6, 12, 12, at, lane, text + '\nAccepted although a newer token had been'); continue; }
    if (px - last < 2) continue;
    last = px;
    g.fillStyle = colours.accepted;
    g.fillRect(px - 1.5, py - 1.5, 3, 3);
    hit(px - 3, py - 4, 6, 8, at, lane, text);
  }
  g.strokeStyle = colours.refused;
  g.lineWidth = 2;
  g.beginPath();
  for (const [px, py] of refused) {
    g.moveTo(px - 4, py - 4); g.lineTo(px + 4, py + 4);
    g.moveTo(px + 4, py - 4); g.lineTo(px - 4, py + 4);
  }
  g.stroke();
  // What must not have been accepted.
  g.strokeStyle = colours.bad;
  g.fillStyle = colours.page;
  for (const [px, py] of wrong) {
    g.beginPath();
    g.arc(px, py, 4, 0, 7);
    g.fill();
    g.stroke();
  }
}

// drawViolations draws a line where an invariant broke first, and a mark where it was found broken again.
function drawViolations({ g, x, high, hit }) {
  const before = new Set(), taken = [];
  for (const v of data.violations) {
    const again = before.has(v.invariant), at = x(v.at);
    before.add(v.invariant);
    if (v.at < seen.from || v.at > seen.to) continue;
    g.fillStyle = g.strokeStyle = colours.bad;
    if (again) {
      g.fillRect(at - .75, 2, 1.5, 7);
      hit(at - 3, 0, 6, 10, v.at, -1, v.invariant + ' is still broken\n' + exact(v.at) + '\n' + v.text);
      continue;
    }
    g.lineWidth = 2;
    g.setLineDash([6, 3]);
    g.beginPath();
    g.moveTo(at, 0);
    g.lineTo(at, high);
    g.stroke();
    g.setLineDash([]);
    const w = g.measureText(v.invariant).width + 10, left = Math.min(at, chart.clientWidth - w);
    if (taken.some(t => Math.abs(t - left) < w)) continue;
    taken.push(left);
    g.fillRect(left, 2, w, 16);
    g.fillStyle = colours.page;
    g.fillText(v.invariant, left + 5, 10.5);
    hit(left, 2, w, 16, v.at, -1, v.invariant + ' is broken\n' + exact(v.at) + '\n' + v.text);
  }
}

function drawChosen({ g, x, high }) {
  const e = events[chosenOf.event];
  if (!e || e.at < seen.from || e.at > seen.to) return;
  g.strokeStyle = colours.focus;
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(x(e.at), 0);
  g.lineTo(x(e.at), high);
  g.stroke();
  const row = rows.find(r => r.type === 'lane' && r.lane === e.lane);
  if (!row) return;
  g.lineWidth = 2;
  g.beginPath();
  g.arc(x(e.at), row.y - scroll.scrollTop + row.h - 5, 6, 0, 7);
  g.stroke();
}

function drawLabels({ g, width, high }, top) {
  g.fillStyle = colours.panel;
  g.fillRect(0, 0, gutter, high);
  for (const row of rows) {
    const y = row.y - top;
    if (y > high || y + row.h < 0) continue;
    g.strokeStyle = colours.line;
    g.lineWidth = 1;
    if (row.type !== 'gap') {
      g.beginPath();
      g.moveTo(0, Math.round(y + row.h) - .5);
      g.lineTo(row.type === 'belief' ? gutter : width, Math.round(y + row.h) - .5);
      g.stroke();
    }
    const middle = y + row.h / 2 + .5;
    if (row.type === 'title') {
      g.font = '600 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
      g.fillStyle = row.bad ? colours.bad : colours.ink;
      g.fillText(shorten(g, row.text, gutter - 20), 10, middle);
      if (row.bad) g.fillText(row.bad, gutter + 8, middle);
    } else if (row.name) {
      const note = g.measureText(row.note || '').width;
      g.fillStyle = colours.ink;
      g.fillText(shorten(g, row.name, Math.max(60, gutter - 34 - note)), 18, middle);
      g.fillStyle = colours.faint;
      g.textAlign = 'right';
      g.fillText(shorten(g, row.note || '', 104), gutter - 8, middle);
      g.textAlign = 'left';
    }
    g.font = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  }
  g.strokeStyle = colours.line;
  g.beginPath();
  g.moveTo(gutter - .5, 0);
  g.lineTo(gutter - .5, high);
  g.stroke();
}

function shorten(g, text, room) {
  if (g.measureText(text).width <= room) return text;
  let n = text.length;
  while (n > 1 && g.measureText(text.slice(0, n) + '…').width > room) n--;
  return text.slice(0, n) + '…';
}

let pointer = null; // where it is on the chart
function drawAxis(width, plot) {
  const g = prepare(el('axis'), el('axis').clientWidth, 22), step = stepOf(plot);
  g.fillStyle = colours.faint;
  for (let t = Math.ceil(seen.from / step) * step; t <= seen.to; t += step) {
    const at = gutter + (t - seen.from) / (seen.to - seen.from) * plot;
    const text = tickTime(t, step);
    g.fillRect(Math.round(at), 15, 1, 7);
    if (at + 4 + g.measureText(text).width < width) g.fillText(text, at + 4, 10);
  }
  if (pointer && pointer.x >= gutter) {
    const text = exact(seen.from + (pointer.x - gutter) / plot * (seen.to - seen.from)), w = g.measureText(text).width + 10;
    const left = clamp(pointer.x - w / 2, gutter, width - w);
    g.fillStyle = colours.ink;
    g.fillRect(left, 2, w, 17);
    g.fillStyle = colours.page;
    g.fillText(text, left + 5, 11);
  }
}

// drawMap draws the whole run: when faults were, when promises broke, and what is visible.
function drawMap() {
  const map = el('map'), width = map.clientWidth, g = prepare(map, width, 26), plot = width - gutter - 12;
  const x = t => gutter + Math.min(1, t / data.simulated) * plot;
  g.fillStyle = colours.faint;
  g.fillText('whole run', 10, 13);
  const row = { down: 4, paused: 8, cut: 12, disk: 16, clock: 20 };
  for (const [, k, from, to] of data.bands) {
    const kind = data.bandKinds[k];
    if (!row[kind]) continue;
    g.fillStyle = colours[kind];
    g.fillRect(x(from), row[kind], Math.max(1.5, x(to) - x(from)), 3);
  }
  g.fillStyle = colours.bad;
  for (const v of data.violations) g.fillRect(x(v.at) - 1, 0, 2, 26);
  g.strokeStyle = colours.focus;
  g.lineWidth = 1.5;
  g.strokeRect(x(seen.from) + .75, 1.5, Math.max(3, x(seen.to) - x(seen.from) - 1.5), 23);
  g.globalAlpha = .12;
  g.fillStyle = colours.focus;
  g.fillRect(x(seen.from), 1, Math.max(3, x(seen.to) - x(seen.from)), 24);
  g.globalAlpha = 1;
}

// The list of events, of which only the visible rows exist.
const rowHeight = 22, list = el('list'), kindsShown = new Set(data.eventKinds);
let shown = events;

function filter() {
  const actor = el('actor').value, words = el('text').value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = events.filter(e => kindsShown.has(e.kind) && (actor === '' || String(e.lane) === actor) &&
    words.every(w => e.text.toLowerCase().includes(w) || laneName(e.lane).toLowerCase() === w));
  el('count').textContent = shown.length.toLocaleString('en') + ' of ' + events.length.toLocaleString('en') + ' events';
  el('rows').style.height = shown.length * rowHeight + 'px';
  fill(true);
}

let filled = '';
function fill(anew) {
  const first = Math.max(0, Math.floor(list.scrollTop / rowHeight) - 5), last = Math.min(shown.length, first + Math.ceil(list.clientHeight / rowHeight) + 10);
  const key = first + ' ' + last + ' ' + chosenOf.event;
  if (!anew && key === filled) return;
  filled = key;
  const made = document.createDocumentFragment();
  for (let i = first; i < last; i++) made.append(eventRow(shown[i], i));
  if (!shown.length) {
    const none = document.createElement('p');
    none.className = 'none';
    none.textContent = events.length ? 'No event is like that: clear the text, or choose more kinds.' : 'The run kept no events.';
    made.append(none);
  }
  el('rows').replaceChildren(made);
}

// aligned writes an instant so that the points of all stand below each other.
function aligned(ns) {
  const text = exact(ns), digits = text.length - 2 - text.indexOf('.');
  return text + '\u00a0'.repeat(9 - digits);
}

function eventRow(e, place) {
  const row = document.createElement('div');
  row.className = 'row ' + e.kind;
  row.id = 'row' + e.id;
  row.style.top = place * rowHeight + 'px';
  row.setAttribute('role', 'option');
  row.setAttribute('aria-posinset', place + 1);
  row.setAttribute('aria-setsize', shown.length);
  row.setAttribute('aria-selected', e.id === chosenOf.event);
  const number = document.createElement('a');
  number.className = 'number';
  number.href = '#e' + e.id;
  number.tabIndex = -1;
  number.textContent = '#e' + e.id;
  row.append(number);
  for (const [name, text] of [['at', aligned(e.at)], ['actor', laneName(e.lane)], ['kind', e.kind], ['what', e.text]]) {
    const cell = document.createElement('span');
    cell.className = name;
    cell.textContent = text;
    if (name === 'what') cell.title = text;
    row.append(cell);
  }
  row.addEventListener('click', click => { click.preventDefault(); choose(e.id, true); });
  return row;
}

// choose marks an event, brings its row into view and, with move, its instant into the middle.
function choose(id, move) {
  const e = events[id];
  if (!e) return;
  chosenOf.event = id;
  if (!shown.includes(e)) {
    kindsShown.add(e.kind);
    for (const box of el('kinds').querySelectorAll('input')) box.checked = kindsShown.has(box.value);
    el('actor').value = '';
    el('text').value = '';
    filter();
  }
  const top = shown.indexOf(e) * rowHeight;
  if (top < list.scrollTop || top + rowHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 2;
  history.replaceState(null, '', '#e' + id);
  list.setAttribute('aria-activedescendant', 'row' + id);
  fill(true);
  const row = rows.find(r => r.type === 'lane' && r.lane === e.lane);
  if (move && row && (row.y < scroll.scrollTop || row.y + row.h > scroll.scrollTop + scroll.clientHeight)) scroll.scrollTop = row.y - scroll.clientHeight / 2;
  if (move) centre(e.at); else redraw();
  el('live').textContent = exact(e.at) + ' ' + laneName(e.lane) + ' ' + e.kind + ': ' + e.text;
}

// nearest finds the event that tells of something: of that actor, if it has any nearby, and rather any other than a mark.
function nearest(at, lane) {
  let best = -1, distance = Infinity;
  const around = firstAt(events, e => e.at, at);
  for (let i = Math.max(0, around - 400); i < Math.min(events.length, around + 400); i++) {
    const d = Math.abs(events[i].at - at) + (lane < 0 || events[i].lane === lane ? 0 : second) + (events[i].kind === 'mark' ? 1e6 : 0);
    if (d < distance) [best, distance] = [i, d];
  }
  return best;
}

function next(by) {
  let i = shown.findIndex(e => e.id === chosenOf.event);
  if (i < 0) i = firstAt(shown, e => e.at, (seen.from + seen.to) / 2) - (by > 0 ? 1 : 0);
  if (shown.length) choose(shown[clamp(i + by, 0, shown.length - 1)].id, true);
}

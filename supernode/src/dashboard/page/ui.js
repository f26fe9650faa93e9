// Elements, and tables that keep their rows: what has the focus keeps it when the figures change.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A bar with its figure; drawn into `cell` again and again.
export function bar(cell, part, whole) {
  let made = cell.querySelector('.bar');
  if (!made) {
    made = h('div', { class: 'bar' }, h('span', { 'aria-hidden': 'true' }, h('i')), h('b'));
    cell.replaceChildren(made);
  }
  const share = whole ? Math.min(100, Math.floor((part * 100) / whole)) : 0;
  made.querySelector('i').style.width = `${share}%`;
  say(made.querySelector('b'), `${share} %`);
}

export const card = (title, note, ...children) =>
  h('section', { class: 'card' }, h('div', { class: 'head' }, h('h2', {}, title), note && h('p', {}, note)), ...children);

// Named figures: `facts({Nodes: dd}).Nodes` is filled by the caller.
export function facts(names) {
  const cells = Object.fromEntries(names.map((name) => [name, h('dd')]));
  const list = h('dl', { class: 'facts' }, names.map((name) => h('div', {}, h('dt', {}, name), cells[name])));
  const set = (name, value, more) => {
    const text = value + (more || '');
    if (cells[name].dataset.text === text) return;
    cells[name].dataset.text = text;
    cells[name].replaceChildren(value, more ? h('small', {}, more) : '');
  };
  return { list, set };
}

// columns: {label, number, value(row) to sort by, draw(cell, row)}; the first one names the row.
export function table(caption, columns, keyOf, { sort = null, down = true } = {}) {
  const order = { column: sort, down };
  const rows = new Map();
  let shown = [];
  const heads = columns.map((column, at) => {
    const press = () => {
      order.down = order.column === at ? !order.down : Boolean(column.number);
      order.column = at;
      update(shown);
    };
    const title = column.value ? h('button', { type: 'button', onclick: press }, column.label) : column.label;
    return h('th', { scope: 'col', role: 'columnheader', class: column.number ? 'number' : null }, title);
  });
  const body = h('tbody', { role: 'rowgroup' });
  const head = h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads));
  const element = h('table', { role: 'table' }, h('caption', {}, caption), head, body);

  function make(row) {
    const cells = columns.map((column, at) =>
      h(at ? 'td' : 'th', {
        role: at ? 'cell' : 'rowheader', scope: at ? null : 'row',
        class: column.number ? 'number' : null, 'data-label': column.label,
      }));
    const tr = h('tr', { role: 'row', 'data-key': keyOf(row) }, cells);
    return { tr, cells };
  }

  function update(list) {
    shown = list;
    const column = columns[order.column];
    const sorted = column ? [...list].sort((a, b) => compare(column.value(a), column.value(b)) * (order.down ? -1 : 1)) : list;
    heads.forEach((th, at) => {
      if (columns[at].value) th.setAttribute('aria-sort', at !== order.column ? 'none' : order.down ? 'descending' : 'ascending');
    });
    const gone = new Set(rows.keys());
    let before = null;
    for (const row of sorted) {
      const key = keyOf(row);
      gone.delete(key);
      if (!rows.has(key)) rows.set(key, make(row));
      const { tr, cells } = rows.get(key);
      columns.forEach((column, at) => column.draw(cells[at], row));
      // Only what stands elsewhere is moved: moving takes the focus away.
      const place = before ? before.nextSibling : body.firstChild;
      if (place !== tr) body.insertBefore(tr, place);
      before = tr;
    }
    for (const key of gone) {
      rows.get(key).tr.remove();
      rows.delete(key);
    }
  }
  return { element, update, row: (key) => rows.get(key)?.tr };
}

const words = new Intl.Collator('en', { numeric: true });
const compare = (a, b) => (typeof a === 'string' ? words.compare(a, b) : a - b);

// A cell of text.
export const text = (label, of, more = {}) => ({ label, draw: (cell, row) => say(cell, of(row)), ...more });

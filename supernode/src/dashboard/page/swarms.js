// The list of swarms, and one swarm: its members, and who gives to whom.

import { get, names } from './api.js';
import { graph } from './graph.js';
import { bytes, count, host, many, short, speed, zone } from './text.js';
import { bar, card, facts, h, say, table, text } from './ui.js';

// The scheduler hears of the supernode's own copy when somebody joins.
const SEED = { none: 'no part in it', growing: 'fetching', whole: 'all of it' };

export function swarmTable(caption, sort) {
  const title = {
    label: 'Content',
    draw(cell, { task }) {
      if (!cell.firstChild) cell.append(h('a', { href: `#/swarms/${task}`, class: 'id', title: task }, short(task)));
    },
  };
  const columns = [
    title,
    text('Size', ({ length }) => (length == null ? 'not known' : bytes(length)), { number: true, value: ({ length }) => length ?? -1 }),
    text('Nodes', ({ members }) => count(members), { number: true, value: ({ members }) => members }),
    text('Still want it', ({ members, complete }) => count(members - complete), { number: true, value: ({ members, complete }) => members - complete }),
    { label: 'Nodes that have all', value: ({ complete, members }) => complete / (members || 1), draw: (cell, { complete, members }) => bar(cell, complete, members) },
    text('Supernode has', ({ seed, seed_held, pieces }) => (seed === 'growing' ? `${seed_held} of ${pieces ?? '?'} pieces` : SEED[seed]), {}),
  ];
  return table(caption, columns, ({ task }) => task, sort == null ? {} : { sort });
}

export function swarms() {
  const list = swarmTable('A swarm is one blob, and the nodes that have it or want it.');
  const empty = h('p', { class: 'quiet', hidden: true }, 'No swarm yet. It begins when a node pulls something.');
  return {
    title: 'Swarms',
    element: h('div', { class: 'card' }, list.element, empty),
    async load(signal) {
      const [{ total, swarms }, called] = await Promise.all([get('swarms', signal), names(signal).catch(() => new Map())]);
      say(list.element.querySelector('caption'),
        `${many(total, 'swarm', 'swarms')}${total > swarms.length ? `, the busiest ${swarms.length} of them here` : ''}. A swarm is one blob, and the nodes that have it or want it.`);
      list.update(swarms);
      for (const { task } of swarms) if (called.has(task)) name(list.row(task).querySelector('th'), called.get(task));
      list.element.hidden = !swarms.length;
      empty.hidden = swarms.length > 0;
    },
  };
}

function name(cell, text) {
  if (!cell.querySelector('small')) cell.append(h('small', { class: 'quiet' }));
  say(cell.querySelector('small'), ` ${text}`);
}

export function swarm([, id]) {
  const lead = h('p', { class: 'lead id' }, id);
  const numbers = facts(['Size', 'Pieces', 'Nodes', 'Still want it', 'Speed', 'Supernode has']);
  const said = h('p', { class: 'picked-node quiet', 'aria-live': 'polite' });
  const drawing = graph((key) => pick(key));
  let latest = null;
  let picked = null;
  let over = false;

  const member = {
    label: 'Node', value: (row) => host(row),
    draw(cell, row) {
      if (!cell.firstChild) {
        cell.append(h('button', { type: 'button', class: 'plain', onclick: () => pick(picked === row.node ? null : row.node) }));
        const tr = cell.parentElement;
        tr.addEventListener('pointerenter', () => drawing.light(row.node));
        tr.addEventListener('pointerleave', () => drawing.light(picked));
      }
      say(cell.firstChild, host(row));
    },
  };
  const list = table('Who is in it, the slowest first.', [
    member,
    text('Zone', ({ labels }) => zone(labels), { value: ({ labels }) => zone(labels) }),
    { label: 'Has', value: ({ held }) => held, draw: (cell, { held }) => bar(cell, held, latest.pieces) },
    text('Speed', (row) => (row.stage === 'complete' ? 'done' : speed(row.speed)), { number: true, value: (row) => (row.stage === 'complete' ? -1 : row.speed) }),
    text('Gives to', ({ children }) => count(children), { number: true, value: ({ children }) => children }),
  ], ({ node }) => node, { sort: 2, down: false });

  const legend = h('ul', { class: 'legend' },
    h('li', {}, h('span', { class: 'key dot seed' }, 'supernode')), h('li', {}, h('span', { class: 'key dot nodes' }, 'has all')),
    h('li', {}, h('span', { class: 'key dot ring' }, 'wants the rest')),
    h('li', {}, h('span', { class: 'key dot ring doubt' }, 'blamed by others')),
    h('li', {}, h('span', { class: 'key seed' }, 'gives to it')), h('li', {}, h('span', { class: 'key nodes' }, 'takes from it')));
  const element = h('div', {}, lead, h('section', { class: 'card', 'aria-label': 'In numbers' }, numbers.list),
    h('div', { class: 'swarm' },
      card('Who gives to whom', 'inner rings are nearer to a source', drawing.element, legend, said),
      h('section', { class: 'card scroll', 'aria-label': 'Members', tabindex: '0' }, list.element)));

  function pick(key) {
    if (picked) list.row(picked)?.classList.remove('picked');
    picked = key;
    list.row(key)?.classList.add('picked');
    drawing.light(key);
    say(said, words());
  }

  function words() {
    const of = latest && latest.members.find(({ node }) => node === picked);
    if (!of) return 'Choose a node, here or in the table, to see whom it takes from and gives to.';
    const called = (node) => (node === latest.seed_node ? 'the supernode' : host(latest.members.find((member) => member.node === node) || { node }));
    const gives = latest.members.filter(({ parents }) => parents.includes(picked)).map(host);
    const takes = of.parents.map(called);
    const has = of.stage === 'complete' ? 'has all' : `has ${of.held} of ${latest.pieces ?? '?'} pieces`;
    return `${host(of)} ${has}. It takes from ${takes.join(', ') || 'nobody'} and gives to ${gives.join(', ') || 'nobody'}.`;
  }

  return {
    title: `Swarm ${short(id)}`,
    element,
    async load(signal) {
      if (over) return;
      const { swarm, seed_node, members } = await get(`swarms/${id}`, signal);
      latest = { ...swarm, seed_node, members };
      const { length, pieces, piece_length, complete, seed, seed_held } = swarm;
      numbers.set('Size', length == null ? 'not known' : bytes(length));
      numbers.set('Pieces', pieces == null ? 'not known' : count(pieces), piece_length && `of ${bytes(piece_length)}`);
      numbers.set('Nodes', count(members.length));
      numbers.set('Still want it', count(members.length - complete));
      numbers.set('Speed', speed(members.filter(({ stage }) => stage !== 'complete').reduce((sum, { speed }) => sum + speed, 0)), 'of those that want it');
      numbers.set('Supernode has', seed === 'growing' ? `${seed_held} of ${pieces ?? '?'}` : SEED[seed]);
      list.update(members);
      drawing.update(latest);
      drawing.light(picked);
      say(said, words());
      const called = (await names(signal).catch(() => new Map())).get(id);
      if (called) say(lead, `${called} · ${id}`);
    },
    failed(error) {
      over = true;
      element.replaceChildren(lead, h('p', { class: 'card' }, error.status === 404 ? 'This swarm is over: no connected node wants or has it.' : error.message));
    },
  };
}

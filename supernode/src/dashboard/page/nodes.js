// The connected nodes: where they stand, how fast they are, and what others say of them.

import { get } from './api.js';
import { bytes, count, host, many, short, speed, time, zone } from './text.js';
import { h, say, table, text } from './ui.js';

const RANK = { good: 0, doubted: 1, quarantined: 2, outcast: 3 };

export default function nodes() {
  const field = h('input', { id: 'filter', type: 'search', placeholder: 'host, zone, address or id', oninput: () => draw() });
  const name = {
    label: 'Node', value: host,
    draw(cell, row) {
      if (!cell.firstChild) cell.append(h('span'), row.labels.host ? h('small', { class: 'quiet id', title: row.node }, ` ${short(row.node)}`) : '');
      say(cell.firstChild, host(row));
    },
  };
  const standing = {
    label: 'Standing', value: (row) => RANK[row.standing] * 1000 + row.blames,
    draw(cell, { standing, blames }) {
      if (!cell.firstChild) cell.append(h('span'));
      cell.firstChild.className = `badge ${standing}`;
      say(cell.firstChild, blames ? `${standing}, ${many(blames, 'complaint', 'complaints')}` : standing);
    },
  };
  const list = table('', [
    name,
    text('Zone', ({ labels }) => zone(labels), { value: ({ labels }) => zone(labels) }),
    text('Address', ({ address }) => address, { value: ({ address }) => address }),
    text('Receives', (row) => speed(row.speed), { number: true, value: (row) => row.speed }),
    text('Received', ({ received }) => bytes(received), { number: true, value: ({ received }) => received }),
    text('Swarms', ({ tasks }) => count(tasks), { number: true, value: ({ tasks }) => tasks }),
    text('Connected', ({ connected }) => time(connected), { number: true, value: ({ connected }) => connected }),
    standing,
  ], ({ node }) => node, { sort: 0, down: false });
  const empty = h('p', { class: 'quiet', hidden: true });
  let latest = { total: 0, nodes: [] };

  function draw() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = ({ node, address, labels }) => {
      const all = `${node} ${address} ${labels.host} ${labels.zone} ${labels.rack}`.toLowerCase();
      return words.every((word) => all.includes(word));
    };
    const shown = latest.nodes.filter(fits);
    say(list.element.querySelector('caption'), `${many(latest.total, 'node', 'nodes')} connected${shown.length < latest.total ? `, ${count(shown.length)} shown` : ''}. Figures are what each node reports since it connected.`);
    list.update(shown);
    list.element.hidden = !shown.length;
    empty.hidden = shown.length > 0;
    say(empty, latest.total ? 'No node fits these words.' : 'No node is connected. The overview says how one joins.');
  }

  return {
    title: 'Nodes',
    element: h('div', { class: 'card' }, h('div', { class: 'filter' }, h('label', { for: 'filter' }, 'Show only'), field), list.element, empty),
    async load(signal) {
      latest = await get('nodes', signal);
      draw();
    },
  };
}

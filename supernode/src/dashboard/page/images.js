// What the supernode has cached, by the repository or place that it came from.

import { get } from './api.js';
import { bytes, count, many, short, time } from './text.js';
import { bar, h, say, table, text } from './ui.js';

// A cache changes slowly, and asking walks over all of it.
const EVERY = 10000;

export default function images() {
  const lead = h('p', { class: 'lead' });
  const groups = h('div', { class: 'card' });
  const made = new Map();
  let last = 0;

  function group({ name, tasks }) {
    const key = name ?? '';
    if (!made.has(key)) {
      const list = table('The last used first.', [
        { label: 'Content', draw: (cell, { task }) => cell.firstChild || cell.append(h('span', { class: 'id', title: task }, short(task))) },
        text('What', ({ kind, pinned }) => (pinned ? `${kind}, pinned` : kind), { value: ({ kind }) => kind }),
        text('Size', ({ length }) => bytes(length), { number: true, value: ({ length }) => length }),
        { label: 'Cached', value: ({ cached, length }) => cached / (length || 1), draw: (cell, { cached, length }) => bar(cell, cached || Number(!length), length || 1) },
        text('On nodes', ({ nodes }) => count(nodes), { number: true, value: ({ nodes }) => nodes }),
        text('Last used', ({ last_used }) => `${time(Math.max(0, Date.now() / 1000 - last_used))} ago`, { number: true, value: ({ last_used }) => last_used }),
      ], ({ task }) => task);
      const sum = h('span');
      const element = h('details', { class: 'group', open: made.size < 5 }, h('summary', {}, h('b', {}, name ?? 'Cached content'), sum), list.element);
      made.set(key, { element, list, sum });
    }
    const { list, sum, element } = made.get(key);
    const size = tasks.reduce((sum, { length }) => sum + length, 0);
    const cached = tasks.reduce((sum, { cached }) => sum + cached, 0);
    say(sum, `${many(tasks.length, 'blob', 'blobs')}, ${cached < size ? `${bytes(cached)} of ${bytes(size)}` : bytes(size)} cached`);
    list.update(tasks);
    return element;
  }

  return {
    title: 'Images',
    element: h('div', {}, lead, groups),
    async load(signal) {
      if (Date.now() - last < EVERY) return;
      const { named, total, sources } = await get('images', signal);
      last = Date.now();
      const shown = sources.reduce((sum, { tasks }) => sum + tasks.length, 0);
      say(lead, `${many(total, 'blob', 'blobs')} in the supernode’s cache${shown < total ? `, the ${count(shown)} last used here` : ''}.${
        named ? '' : ' Names of images are shown to who logs in with a token (--api-token-file): other users of this machine may look here too.'}`);
      const elements = sources.map(group);
      if (!sources.length) groups.replaceChildren(h('p', { class: 'quiet' }, 'Nothing is cached yet. What nodes pull passes through here once, and stays while there is room.'));
      else if (elements.some((element, at) => groups.children[at] !== element) || groups.children.length !== elements.length) groups.replaceChildren(...elements);
    },
  };
}

// The first page: what was saved, what moves, whether all is well.

import { get } from './api.js';
import { plot } from './plot.js';
import { swarmTable } from './swarms.js';
import { bytes, count, many, percent, speed, time } from './text.js';
import { card, facts, h, say } from './ui.js';

// Speeds are taken over at least this many seconds, as the supernode does: whole pieces make them jump.
const OVER = 6;
const KEPT = 720;

const JOIN = 'longshore peer --supernode HOST:7700 --join-token-file FILE';

export default function overview() {
  const figure = h('p', { class: 'figure' });
  const over = h('p', { class: 'over' }, 'Saved at the origin');
  const words = h('p');
  const numbers = facts(['Nodes', 'Swarms at work', 'Cache', 'Up for']);
  const troubles = h('div', { role: 'status' });
  const saved = plot('Bytes saved at the origin in the last hour', [{ name: 'saved', tone: 'nodes', stacked: true }], bytes);
  const speeds = plot('Speed by source', [
    { name: 'from node to node', tone: 'nodes', stacked: true },
    { name: 'supernode to nodes', tone: 'seed', stacked: true },
    { name: 'origin to supernode', tone: 'origin' },
  ], speed);
  const busiest = swarmTable('Those with the most nodes that still want something come first.');
  const none = h('div', { class: 'empty', hidden: true });
  const swarms = card('Busiest swarms', null, busiest.element, none);
  const element = h('div', {}, troubles,
    h('section', { class: 'card hero', 'aria-label': 'Saved at the origin' }, h('div', {}, over, figure, words), numbers.list),
    h('div', { class: 'grid' },
      card('Saved', 'since the supernode started', saved.element),
      card('Speed by source', 'what nodes receive', speeds.element)),
    swarms);
  let samples = [];

  function show(now) {
    const { bytes: sums, cache } = now;
    say(figure, bytes(sums.saved));
    say(words, sentence(sums));
    numbers.set('Nodes', count(now.nodes), now.zones > 1 ? `in ${now.zones} zones` : 'connected');
    numbers.set('Swarms at work', count(now.active), `of ${many(now.swarms, 'swarm', 'swarms')}`);
    numbers.set('Cache', bytes(cache.disk), cache.quota ? `${percent(cache.disk, cache.quota)} of ${bytes(cache.quota)}` : `${bytes(cache.free)} free on its disk`);
    numbers.set('Up for', time(now.uptime_ms / 1000), now.troubles.length ? many(now.troubles.length, 'trouble', 'troubles') : 'all is well');
    const said = now.troubles.map(({ text }) => text).join('\n');
    if (troubles.dataset.said !== said) {
      troubles.dataset.said = said;
      troubles.replaceChildren(...now.troubles.map(({ serious, text }) =>
        h('p', { class: serious ? 'trouble serious' : 'trouble' }, h('b', {}, serious ? 'Trouble' : 'Note'), text)));
    }
    busiest.update(now.busiest);
    busiest.element.hidden = !now.busiest.length;
    none.hidden = now.busiest.length > 0;
    if (!now.busiest.length) none.replaceChildren(...(now.nodes ? idle() : alone()));
    draw();
  }

  function draw() {
    saved.update(samples.map(({ t, delivered, origin }) => ({ t, values: [Math.max(0, delivered - origin)] })));
    speeds.update(rates(samples));
  }

  return {
    title: 'Overview',
    element,
    async load(signal) {
      const now = await get('overview', signal);
      samples = now.history.map(([ms, delivered, origin, seed]) => ({ t: ms / 1000, delivered, origin, seed }));
      show(now);
    },
    news(now) {
      const { delivered, origin, seed } = now.bytes;
      samples.push({ t: now.uptime_ms / 1000, delivered, origin, seed });
      // Older than an hour, or another start of the supernode.
      const { t } = samples[samples.length - 1];
      samples = samples.filter((sample) => sample.t <= t && sample.t > t - 3600);
      if (samples.length > KEPT) samples = samples.filter((_, at) => at % 2 || at > KEPT / 2);
      show(now);
    },
  };
}

function sentence({ saved, delivered, origin }) {
  if (!delivered) return 'Nothing was pulled yet. What nodes get from each other and from this supernode’s cache is counted here.';
  if (!saved) return `Nodes got ${bytes(delivered)}, and the origin sent as much: a first pull of one node saves nothing yet.`;
  if (!origin) return `Nodes got ${bytes(delivered)}, and the origin sent nothing: all of it was cached.`;
  return `Nodes got ${bytes(delivered)}; the origin sent ${bytes(origin)}. Each byte it sent reached ${(delivered / origin).toFixed(1)} nodes.`;
}

const idle = () => [h('p', {}, 'No swarm yet. Pull an image on one of the nodes, and it appears here.')];

const alone = () => [
  h('p', {}, 'No node is connected. On a node’s machine, with the supernode’s address and a copy of its join token:'),
  h('pre', {}, h('code', {}, JOIN)),
];

// Speeds from sums: each point over the last few seconds before it.
function rates(samples) {
  const points = [];
  let before = 0;
  for (let at = 1; at < samples.length; at += 1) {
    const now = samples[at];
    while (before + 1 < at && samples[before + 1].t <= now.t - OVER) before += 1;
    const then = samples[before];
    const past = now.t - then.t;
    if (past <= 0) continue;
    const nodes = Math.max(0, now.delivered - now.seed) - Math.max(0, then.delivered - then.seed);
    const values = [Math.max(0, nodes), now.seed - then.seed, now.origin - then.origin].map((sum) => sum / past);
    points.push({ t: now.t, values });
  }
  return points;
}

// A swarm as rings around the supernode: who is nearer to a source sits further inside, next to the one it hangs on. Edges are a
// few paths whatever their number, so two hundred nodes cost little; those of one node are lit when it is looked at. One stop for
// the Tab key; the arrows go from node to node.

import { host } from './text.js';
import { s } from './ui.js';

const MOST_WIDTH = 720;
const STANDING = { doubted: 'doubted', quarantined: 'bad', outcast: 'bad' };

export function graph(pick) {
  const rings = s('g');
  const mesh = s('path', { class: 'mesh' });
  const trunk = s('path', { class: 'trunk' });
  const takes = s('path', { class: 'takes' });
  const gives = s('path', { class: 'gives' });
  const dots = s('g');
  const svg = s('svg', { class: 'graph', role: 'group', 'aria-label': 'Who gives to whom. The arrow keys go from node to node; the table beside it says the same.' },
    rings, mesh, trunk, gives, takes, dots);
  const made = new Map();
  let places = new Map();
  let latest = null;
  let lit = null;
  let stop = null;

  function dot(key, source) {
    const group = s('g', { class: 'dot', role: source ? 'img' : 'button', tabindex: '-1' }, s('circle', { class: 'base' }), s('circle', { class: 'ring', pathLength: 100 }), s('text'));
    if (!source) {
      group.addEventListener('click', () => pick(key));
      group.addEventListener('pointerenter', () => light(key));
      group.addEventListener('pointerleave', () => light(lit));
      group.addEventListener('focus', () => enter(key));
      group.addEventListener('keydown', (event) => step(event, key));
    }
    dots.append(group);
    made.set(key, group);
    return group;
  }

  function enter(key) {
    stop = key;
    for (const [other, group] of made) group.setAttribute('tabindex', other === key ? '0' : '-1');
    pick(key);
  }

  function step(event, key) {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === 'Enter' || event.key === ' ') pick(key);
    else if (way) {
      const order = [...places.keys()].filter((other) => other !== latest.seed_node);
      made.get(order[(order.indexOf(key) + way + order.length) % order.length]).focus();
    } else return;
    event.preventDefault();
  }

  function update(swarm) {
    latest = swarm;
    const width = Math.min(MOST_WIDTH, svg.clientWidth || MOST_WIDTH);
    const { at, radii } = layout(swarm, width);
    places = at;
    const height = Math.ceil(2 * (radii[radii.length - 1] || 60) + 60);
    svg.setAttribute('viewBox', `${-width / 2} ${-height / 2} ${width} ${height}`);
    svg.classList.toggle('many', swarm.members.length > 60);
    rings.replaceChildren(...radii.map((r) => s('circle', { class: 'ringline', r })));
    const size = swarm.members.length <= 36 && width > 480 ? 9 : swarm.members.length <= 90 ? 6 : 4.2;
    const roomy = width > 480 && swarm.members.length <= 36;
    place(swarm.seed_node, { held: swarm.seed_held, stage: 'source' }, size * 1.7, false);
    for (const member of swarm.members) place(member.node, member, size, roomy);
    for (const [key, group] of made) {
      if (places.has(key)) continue;
      group.remove();
      made.delete(key);
    }
    if (!places.has(stop)) {
      stop = swarm.members.length ? swarm.members[0].node : null;
      if (stop) made.get(stop).setAttribute('tabindex', '0');
    }
    const edges = swarm.members.flatMap(({ node, parents, trunk }) => parents.map((parent) => [parent, node, parent === trunk]));
    trunk.setAttribute('d', edges.filter(([, , is]) => is).map(([from, to]) => arc(from, to, 0.86)).join(''));
    mesh.setAttribute('d', edges.filter(([, , is]) => !is).map(([from, to]) => arc(from, to, 0.55)).join(''));
  }

  function place(key, { held, stage, standing, labels }, size, named) {
    const group = made.get(key) || dot(key, stage === 'source');
    const { x, y } = places.get(key);
    const share = latest.pieces ? Math.floor((held * 100) / latest.pieces) : 0;
    const name = stage === 'source' ? 'supernode' : host({ node: key, labels });
    group.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
    group.setAttribute('class', `dot ${stage} ${STANDING[standing] || ''}`);
    group.setAttribute('aria-label', stage === 'source' ? 'The supernode' : `${name}, has ${share} %`);
    const [base, ring, label] = group.children;
    base.setAttribute('r', size);
    ring.setAttribute('r', size);
    ring.setAttribute('transform', 'rotate(-90)');
    ring.setAttribute('stroke-dasharray', stage === 'wanting' ? `${share} ${100 - share}` : '0 100');
    label.textContent = stage === 'source' ? 'S' : name;
    label.setAttribute('visibility', named || stage === 'source' ? 'visible' : 'hidden');
    const left = x < -1;
    label.setAttribute('text-anchor', stage === 'source' ? 'middle' : left ? 'end' : 'start');
    label.setAttribute('x', stage === 'source' ? 0 : (left ? -1 : 1) * (size + 6));
    label.setAttribute('y', 4);
    group.dataset.named = named || stage === 'source' ? 'yes' : '';
  }

  function arc(from, to, pull) {
    const a = places.get(from);
    const b = places.get(to);
    if (!a || !b) return '';
    const [cx, cy] = [((a.x + b.x) / 2) * pull, ((a.y + b.y) / 2) * pull];
    return `M${a.x.toFixed(1)} ${a.y.toFixed(1)}Q${cx.toFixed(1)} ${cy.toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
  }

  // Lights a node and its edges, until another one is lit; `null` lights none.
  function light(key) {
    const member = latest?.members.find(({ node }) => node === key);
    const parents = member ? member.parents : [];
    const children = member ? latest.members.filter((other) => other.parents.includes(key)).map(({ node }) => node) : [];
    takes.setAttribute('d', parents.map((parent) => arc(parent, key, 0.75)).join(''));
    gives.setAttribute('d', children.map((child) => arc(key, child, 0.75)).join(''));
    svg.classList.toggle('lit', Boolean(member));
    for (const [other, group] of made) {
      group.classList.toggle('lit', other === key);
      group.classList.toggle('near', parents.includes(other) || children.includes(other));
      if (!group.dataset.named) group.lastChild.setAttribute('visibility', other === key ? 'visible' : 'hidden');
    }
  }

  return {
    element: svg,
    update,
    light(key) {
      lit = key;
      light(key);
    },
  };
}

// Where everybody sits. Members that have all are sources beside the supernode; the others sit one ring outside of the one they
// hang on. Around a ring they stand in the order of the tree, as far apart as there is room.
function layout({ members, seed_node }, width) {
  const byNode = new Map(members.map((member) => [member.node, member]));
  const below = new Map();
  const put = (parent, child) => below.set(parent, [...(below.get(parent) || []), child]);
  for (const { node, stage, trunk } of members) put(stage === 'complete' || !byNode.has(trunk) ? seed_node : trunk, node);
  const levels = [];
  const seen = new Set();
  const walk = (node, depth) => {
    for (const child of below.get(node) || []) {
      if (seen.has(child)) continue;
      seen.add(child);
      (levels[depth] ||= []).push(child);
      walk(child, depth + 1);
    }
  };
  walk(seed_node, 0);
  const most = width / 2 - (members.length <= 36 && width > 480 ? 90 : 24);
  // A ring with many nodes gets more room inside of it, so that it is longer.
  const reach = [];
  levels.reduce((sum, level, at) => (reach[at] = sum + 0.5 + (1.5 * level.length) / members.length), 0.4);
  const radii = reach.map((sum) => (most * sum) / reach[reach.length - 1] * (members.length > 6 || levels.length > 1 ? 1 : 0.6));
  const at = new Map([[seed_node, { x: 0, y: 0 }]]);
  levels.forEach((level, depth) => {
    const room = (2 * Math.PI * radii[depth]) / level.length;
    level.forEach((node, i) => {
      const angle = ((i + 0.5 * (depth % 2)) / level.length) * 2 * Math.PI - Math.PI / 2;
      // Where a ring is full its nodes stand in two rows, or three.
      const rows = room > 13 ? 1 : room > 7 ? 2 : 3;
      const r = radii[depth] + ((i % rows) - (rows - 1) / 2) * 14;
      at.set(node, { x: r * Math.cos(angle), y: r * Math.sin(angle) });
    });
  });
  return { at, radii: radii.length ? radii : [60] };
}

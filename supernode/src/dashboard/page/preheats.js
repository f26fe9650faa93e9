// What is brought to nodes before it is wanted: jobs, how far they are, and what went wrong.

import { get } from './api.js';
import { bytes, count, many, time } from './text.js';
import { bar, h, say, table, text } from './ui.js';

const what = ({ spec }) => spec.image || (spec.files?.length === 1 ? spec.files[0].url.split('?')[0] : spec.files?.length ? many(spec.files.length, 'file', 'files') : 'not shown without a token');
const age = (from) => (Date.now() - Date.parse(from)) / 1000;

function why(job) {
  const nodes = job.failed_nodes;
  if (!job.message && !nodes.length) return '';
  const named = nodes.length ? ` (${nodes.slice(0, 5).join(', ')}${nodes.length > 5 ? ', …' : ''})` : '';
  return `${job.message || many(job.failed, 'node failed', 'nodes failed')}${named}`;
}

export default function preheats() {
  const lead = h('p', { class: 'lead' });
  const list = table('The newest first.', [
    { label: 'What', value: what, draw(cell, job) { if (!cell.firstChild) cell.append(h('span')); say(cell.firstChild, what(job)); } },
    text('Job', ({ id }) => String(id), { number: true, value: ({ id }) => id }),
    text('To', ({ spec }) => spec.to, { value: ({ spec }) => spec.to }),
    text('State', ({ state }) => state, { value: ({ state }) => state }),
    { label: 'Nodes that have it', value: ({ succeeded, desired }) => succeeded / (desired || 1), draw: (cell, { succeeded, desired }) => bar(cell, succeeded, desired) },
    text('At work', ({ active }) => count(active), { number: true, value: ({ active }) => active }),
    text('Size', ({ contents }) => (contents ? bytes(contents.bytes) : ''), { number: true, value: ({ contents }) => contents?.bytes || 0 }),
    text('Begun', ({ created_at }) => `${time(Math.max(0, age(created_at)))} ago`, { number: true, value: ({ created_at }) => -age(created_at) }),
    text('What went wrong', why),
  ], ({ id }) => String(id));
  const empty = h('p', { class: 'quiet' }, 'No job is there. ', h('code', {}, 'longshore preheat IMAGE'), ' on the supernode’s machine brings an image to all nodes.');

  return {
    title: 'Preheats',
    element: h('div', {}, lead, h('div', { class: 'card' }, list.element, empty)),
    async load(signal) {
      const [jobs, schedules] = await Promise.all([get('preheats', signal), get('preheat-schedules', signal)]);
      const open = jobs.filter(({ state }) => ['pending', 'running', 'paused'].includes(state)).length;
      say(lead, `${many(jobs.length, 'job', 'jobs')}, ${count(open)} not done yet${schedules.length ? `; ${many(schedules.length, 'schedule begins', 'schedules begin')} jobs by ${schedules.length === 1 ? 'itself' : 'themselves'}` : ''}.`);
      list.update(jobs);
      list.element.hidden = !jobs.length;
      empty.hidden = jobs.length > 0;
    },
  };
}

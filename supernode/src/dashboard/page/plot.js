// A plot over the last hour. Series are drawn as lines, stacked ones as areas that stand on each other.

import { h, s, say } from './ui.js';

const HEIGHT = 210;
const EDGE = { left: 4, right: 4, top: 22, bottom: 24 };
const HOUR = 3600;
const STEPS = [10, 30, 60, 120, 300, 600, 900];

// series: [{name, tone, stacked}]; points: [{t: seconds, values}]
export function plot(label, series, format) {
  const grid = s('g');
  const marks = s('g');
  const drawn = series.map(({ tone, stacked }) => ({
    area: stacked && s('path', { class: `area ${tone}` }),
    line: s('path', { class: `line ${tone}` }),
  }));
  const cursor = s('line', { class: 'cursor', visibility: 'hidden' });
  const hit = s('text', { class: 'hit', y: 12 });
  const svg = s('svg', { class: 'plot', role: 'img' }, grid, drawn.flatMap(({ area, line }) => [area, line].filter(Boolean)), marks, cursor, hit);
  const keys = series.map(({ name, tone }) => ({ item: h('li', {}, h('span', { class: `key ${tone}` }, name)), value: h('b') }));
  keys.forEach(({ item, value }) => item.append(value));
  const element = h('div', {}, svg, h('ul', { class: 'legend' }, keys.map(({ item }) => item)));
  let points = [];
  let pointer = null;

  function draw() {
    const width = svg.clientWidth || 600;
    svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const end = points.length ? points[points.length - 1].t : 0;
    const span = Math.min(HOUR, Math.max(60, points.length ? end - points[0].t : 0));
    const seen = points.filter(({ t }) => t >= end - span);
    const tops = seen.map(({ values }) => stack(series, values));
    const { most, step } = scale(Math.max(1, ...tops.flat()));
    const x = (t) => EDGE.left + ((t - end + span) / span) * (width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (value / most) * (HEIGHT - EDGE.top - EDGE.bottom);
    axes(x, y, { width, end, span, most, step });
    let under = seen.map(() => 0);
    drawn.forEach(({ area, line }, at) => {
      const top = tops.map((values) => values[at]);
      const trace = seen.map(({ t }, i) => `${x(t).toFixed(1)} ${y(top[i]).toFixed(1)}`);
      line.setAttribute('d', trace.length > 1 ? `M${trace.join('L')}` : '');
      if (!area) return;
      const back = seen.map(({ t }, i) => `${x(t).toFixed(1)} ${y(under[i]).toFixed(1)}`).reverse();
      area.setAttribute('d', trace.length > 1 ? `M${trace.join('L')}L${back.join('L')}Z` : '');
      under = top;
    });
    point(seen, x, width);
  }

  function axes(x, y, { width, end, span, most, step }) {
    const rules = [];
    const words = [];
    for (let value = 0; value <= most + step / 2; value += step) {
      rules.push(s('line', { class: 'rule', x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      if (value) words.push(s('text', { x: EDGE.left, y: y(value) - 4 }, format(value)));
    }
    const every = STEPS.find((step) => span / step <= Math.max(2, width / 110)) || 900;
    for (let ago = 0; ago <= span; ago += every) {
      const anchor = ago === 0 ? 'end' : x(end - ago) < 24 ? 'start' : 'middle';
      words.push(s('text', { x: x(end - ago), y: HEIGHT - 6, 'text-anchor': anchor }, ago === 0 ? 'now' : clock(-ago)));
    }
    grid.replaceChildren(...rules);
    marks.replaceChildren(...words);
  }

  function point(seen, x, width) {
    const near = pointer !== null && seen.length > 1
      ? seen.reduce((best, point) => (Math.abs(x(point.t) - pointer) < Math.abs(x(best.t) - pointer) ? point : best))
      : null;
    cursor.setAttribute('visibility', near ? 'visible' : 'hidden');
    say(hit, '');
    const last = near || seen[seen.length - 1];
    keys.forEach(({ value }, at) => say(value, last ? format(last.values[at]) : ''));
    if (!near) return;
    const at = x(near.t);
    for (const [name, value] of Object.entries({ x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom })) cursor.setAttribute(name, value);
    hit.setAttribute('x', Math.min(Math.max(at, 30), width - 30));
    hit.setAttribute('text-anchor', 'middle');
    say(hit, clock(near.t - seen[seen.length - 1].t) || 'now');
  }

  svg.addEventListener('pointermove', (event) => {
    pointer = event.clientX - svg.getBoundingClientRect().left;
    draw();
  });
  svg.addEventListener('pointerleave', () => {
    pointer = null;
    draw();
  });
  new ResizeObserver(draw).observe(svg);

  return {
    element,
    update(list) {
      points = list;
      const last = list.length ? list[list.length - 1].values : [];
      svg.setAttribute('aria-label', `${label}. Now: ${series.map(({ name }, at) => `${name} ${format(last[at] || 0)}`).join(', ')}.`);
      draw();
    },
  };
}

// Tops of the series: of the stacked ones the sum so far.
function stack(series, values) {
  let sum = 0;
  return values.map((value, at) => (series[at].stacked ? (sum += value) : value));
}

// Round steps in the units of bytes, three to five of them.
function scale(value) {
  const unit = 1024 ** Math.floor(Math.log(value) / Math.log(1024));
  const steps = [0.25, 0.5, 1, 2, 5, 10, 20, 25, 50, 100, 200, 256].map((step) => step * unit);
  const step = steps.find((step) => value / step <= 4) || unit * 512;
  return { step, most: Math.ceil(value / step) * step };
}

function clock(seconds) {
  const past = Math.round(-seconds);
  if (!past) return '';
  return past % 60 === 0 || past > 600 ? `−${Math.round(past / 60)} min` : past < 60 ? `−${past} s` : `−${Math.floor(past / 60)} min ${past % 60} s`;
}

// The shell: which page is shown, the news from the supernode, log-in, and the theme.

import { Denied, get, listen, token } from './api.js';
import { h, say } from './ui.js';
import { time } from './text.js';
import overview from './overview.js';
import { swarm, swarms } from './swarms.js';
import nodes from './nodes.js';
import images from './images.js';
import preheats from './preheats.js';

const main = document.querySelector('#main');
const state = document.querySelector('#state');
const leave = document.querySelector('#leave');
const PAGES = [
  [/^#\/swarms\/([0-9a-f]{64})$/, swarm],
  [/^#\/swarms$/, swarms],
  [/^#\/nodes$/, nodes],
  [/^#\/images$/, images],
  [/^#\/preheats$/, preheats],
  [/^#?\/?$/, overview],
];

// === the page ===

let page = null;
let ending = new AbortController();
let listening = null;

function show() {
  const [hash, create] = PAGES.map(([form, create]) => [form.exec(location.hash), create]).find(([hash]) => hash) || [['', ''], overview];
  ending.abort();
  ending = new AbortController();
  page = create(hash);
  for (const link of document.querySelectorAll('nav a')) {
    const here = link.hash === '#/' ? create === overview : location.hash.startsWith(link.hash);
    here ? link.setAttribute('aria-current', 'page') : link.removeAttribute('aria-current');
  }
  document.title = `${page.title} · Longshore`;
  const title = h('h1', { tabindex: '-1' }, page.title);
  main.replaceChildren(title, page.element);
  load(page, ending.signal);
}

async function load(of, signal) {
  if (of.loading) return;
  of.loading = true;
  try {
    await of.load(signal);
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Denied) return denied(error);
    if (!error.status) return lost();
    if (of.failed) return of.failed(error);
    of.broken = true;
    of.element.replaceChildren(h('p', { class: 'card' }, error.message));
  } finally {
    of.loading = false;
  }
}

function hear() {
  listening?.abort();
  listening = new AbortController();
  listen({ news, lost, denied }, listening.signal);
}

function news(overview) {
  state.className = 'live';
  say(state, 'live');
  say(document.querySelector('#about'), `Longshore ${overview.version}, up ${time(overview.uptime_ms / 1000)}, supernode ${overview.node.slice(0, 10)}`);
  if (page?.broken) show();
  else if (page?.news) page.news(overview);
  else if (page) load(page, ending.signal);
}

function lost() {
  state.className = 'lost';
  say(state, 'no answer');
}

// === log-in ===

function denied(error) {
  listening?.abort();
  ending.abort();
  page = null;
  leave.hidden = true;
  token.clear();
  state.className = '';
  say(state, 'logged out');
  const field = h('input', { id: 'token', type: 'password', required: true, autocomplete: 'current-password', spellcheck: 'false', 'aria-describedby': 'where' });
  const wrong = h('p', { class: 'error', role: 'alert' }, error.message);
  const submit = async (event) => {
    event.preventDefault();
    token.set(field.value.trim());
    try {
      await get('overview');
      begin();
    } catch (again) {
      if (again instanceof Denied) return denied(again);
      token.clear();
      say(wrong, again.message);
    }
  };
  document.title = 'Log in · Longshore';
  main.replaceChildren(h('div', { class: 'login card' }, h('h1', {}, 'Log in'),
    h('form', { onsubmit: submit },
      h('p', { id: 'where', class: 'quiet' }, 'The API’s token opens this page: a line of text that the supernode wrote into the file ',
        h('code', {}, 'api-token'), ' of its data directory, or that ', h('code', {}, '--api-token-file'), ' names. On its machine: ',
        h('code', {}, 'sudo cat /var/lib/longshore/api-token')),
      h('div', {}, h('label', { for: 'token' }, 'API token'), field), wrong,
      h('button', { class: 'go', type: 'submit' }, 'Log in'),
      h('p', { class: 'quiet' }, 'It is kept in this tab until you close it or log out.'))));
  field.focus();
}

function begin() {
  leave.hidden = !token.get();
  show();
  hear();
}

leave.addEventListener('click', () => denied(new Denied('')));

// === theme ===

const dark = matchMedia('(prefers-color-scheme: dark)');
const theme = document.querySelector('#theme');

function paint() {
  const chosen = localStorage.getItem('longshore-theme');
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  say(theme, (chosen || (dark.matches ? 'dark' : 'light')) === 'dark' ? 'Light' : 'Dark');
  theme.setAttribute('aria-label', `${theme.textContent} theme`);
}

theme.addEventListener('click', () => {
  localStorage.setItem('longshore-theme', theme.textContent.toLowerCase());
  paint();
});
dark.addEventListener('change', paint);
paint();

// A link may bring the token behind its '#', which no server sees; it does not stay in the address.
const brought = /^#token=(.+)$/.exec(location.hash);
if (brought) {
  token.set(decodeURIComponent(brought[1]));
  history.replaceState(null, '', '#/');
}
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => {
  show();
  scrollTo(0, 0);
  main.querySelector('h1')?.focus();
});
// A page that nobody sees asks for nothing.
document.addEventListener('visibilitychange', () => {
  if (!page) return;
  if (document.hidden) listening?.abort();
  else hear();
});
begin();

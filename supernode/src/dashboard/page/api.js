// The supernode's API. The token lives as long as this tab and is sent with every question, by this page alone.

const KEY = 'longshore-token';
const AGAIN = 3000;
const POLL = 5000;

export class Denied extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  clear: () => sessionStorage.removeItem(KEY),
};

async function ask(path, signal) {
  const secret = token.get();
  const headers = secret ? { Authorization: `Bearer ${secret}` } : {};
  const answer = await fetch(`/api/v1/${path}`, { headers, signal, cache: 'no-store', redirect: 'error' });
  if (answer.status === 401) throw new Denied(secret ? 'The supernode does not know this token.' : '');
  return answer;
}

export async function get(path, signal) {
  const answer = await ask(path, signal);
  if (answer.ok) return answer.json();
  const said = await answer.text();
  let reason = said.trim();
  try {
    reason = JSON.parse(said).error;
  } catch {
    // It said so in plain words.
  }
  throw Object.assign(new Error(reason || `the supernode answered ${answer.status}`), { status: answer.status });
}

// Tells of each new overview until `signal` ends it. `tell.news(overview)`, `tell.lost()`, `tell.denied(error)`.
export async function listen(tell, signal) {
  while (!signal.aborted) {
    try {
      const answer = await ask('events', signal);
      if (answer.ok) {
        await read(answer.body, tell.news);
        continue;
      }
      // No place, or an older supernode behind the same name: ask instead.
      tell.news(await get('overview', signal));
      await pause(POLL, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Denied) return tell.denied(error);
      tell.lost();
      await pause(AGAIN, signal);
    }
  }
}

async function read(body, news) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (kept + value).split('\n\n');
    kept = parts.pop();
    for (const part of parts) {
      const data = part.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5));
      if (data.length) news(JSON.parse(data.join('\n')));
    }
  }
}

const pause = (time, signal) =>
  new Promise((done) => {
    const timer = setTimeout(done, time);
    signal.addEventListener('abort', () => (clearTimeout(timer), done()), { once: true });
  });

// What tasks are called, where this visitor may know: task → name.
let known = { at: 0, names: new Map() };
export async function names(signal) {
  if (Date.now() - known.at > 15000) {
    known.at = Date.now();
    const { sources } = await get('images', signal);
    known.names = new Map(sources.flatMap(({ name, tasks }) => (name ? tasks.map(({ task, kind }) => [task, `${name} (${kind})`]) : [])));
  }
  return known.names;
}

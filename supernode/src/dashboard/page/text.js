// Figures as people read them. No state, no page.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export const speed = (value) => `${bytes(value)}/s`;

export const count = (value) => Math.round(value).toLocaleString('en');

export const many = (value, one, more) => `${count(value)} ${value === 1 ? one : more}`;

// Down, so that 100 % means all of it.
export const percent = (part, whole) => (whole ? `${Math.floor((part * 100) / whole)} %` : '0 %');

export function time(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

// As the command line does.
export const short = (id) => id.slice(0, 12);

// What a node is called: by its host where it says one.
export const host = (node) => (node.labels && node.labels.host) || short(node.node);

export const zone = (labels) => [labels.zone, labels.rack].filter(Boolean).join(' / ') || 'none said';

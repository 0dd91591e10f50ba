/** The end of the year 9999: later is no time that anybody meant. */
const MAX_MS = 253_402_300_800_000;

/** ISO 8601 as apps and databases write it: date, time, fraction, zone. */
const ISO_TIME = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)([.,]\d+)?(Z|[+-]\d{2}(?::?\d{2})?)?)?$/i;

/**
 * A time as apps write it: seconds, milliseconds (over 10^11), either of them also as text, or ISO 8601 (UTC where it names no zone). In ms
 * since the epoch. `wholeSecond`: whether a time without a fraction means the first or the last ms of its second. Undefined for what is no
 * time.
 */
export function readTime(value: unknown, wholeSecond: 'first' | 'last'): number | undefined {
  const more = wholeSecond === 'last' ? 999 : 0;
  if (typeof value === 'string') return /^\d{1,16}(\.\d+)?$/.test(value) ? readTime(Number(value), wholeSecond) : readIsoTime(value, more);
  if (typeof value !== 'number' || value < 0) return undefined;
  const ms = Math.floor(value > 1e11 ? value : Number.isInteger(value) ? value * 1000 + more : value * 1000);
  return ms < MAX_MS ? ms : undefined;
}

function readIsoTime(text: string, more: number): number | undefined {
  const ms = parseIsoTime(text);
  return ms === undefined || ms < 0 ? undefined : ms + (/[.,]\d/.test(text) ? 0 : more);
}

/** The zero time of other languages (year 1): the app recorded none. */
export function isBeforeEpoch(value: unknown): boolean {
  return typeof value === 'string' && (parseIsoTime(value) ?? 0) < 0;
}

/** Put together in the one spelling that every engine reads alike: what is not meant is no time, rather than another one. */
function parseIsoTime(text: string): number | undefined {
  const [, date, time = '00:00', fraction = '', zone = 'Z'] = ISO_TIME.exec(text) ?? [];
  if (date === undefined) return undefined;
  const offset = zone.toUpperCase() === 'Z' ? 'Z' : `${zone.slice(0, 3)}:${zone.slice(3).replace(':', '') || '00'}`;
  const seconds = time.length === 5 ? `${time}:00` : time;
  const ms = Date.parse(`${date}T${seconds}${fraction.replace(',', '.').slice(0, 4)}${offset}`);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Another time in the spelling of one that `readTime` takes: with a zone, a fraction and a `T` where that has them. */
export function spellIsoTimeAs(old: string, timeMs: number): string {
  const [, , , fraction = '', zone = ''] = ISO_TIME.exec(old) ?? [];
  const iso = new Date(timeMs).toISOString();
  return `${iso.slice(0, 10)}${old.charAt(10) || 'T'}${iso.slice(11, fraction === '' ? 19 : 23)}${zone.replace('-', '+').replaceAll(/\d/g, '0')}`;
}

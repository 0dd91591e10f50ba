/** The end of the year 9999: later is no time that anybody meant. */
const MAX_MS = 253_402_300_800_000;

/**
 * A time as apps write it: seconds, milliseconds (over 10^11), either of them also as text, or ISO 8601. In ms since the epoch.
 * `wholeSecond`: whether a time without a fraction means the first or the last ms of its second. Undefined for what is no time.
 */
export function readTime(value: unknown, wholeSecond: 'first' | 'last'): number | undefined {
  const more = wholeSecond === 'last' ? 999 : 0;
  if (typeof value === 'string') return /^\d{1,16}(\.\d+)?$/.test(value) ? readTime(Number(value), wholeSecond) : readIsoTime(value, more);
  if (typeof value !== 'number' || value < 0) return undefined;
  const ms = Math.floor(value > 1e11 ? value : Number.isInteger(value) ? value * 1000 + more : value * 1000);
  return ms < MAX_MS ? ms : undefined;
}

function readIsoTime(text: string, more: number): number | undefined {
  if (!/^\d{4}-\d{2}-\d{2}/.test(text)) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) || ms < 0 ? undefined : ms + (/[.,]\d/.test(text) ? 0 : more);
}

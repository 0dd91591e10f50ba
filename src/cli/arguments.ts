import { InvalidArgumentError } from 'commander';
import { SESSION_FORMATS, type SessionFormatName } from '../config/session-formats.js';
import { isStage, STAGES, type Stage } from '../stages.js';
import { MAX_WHY } from '../telemetry/audit.js';

/** Of the records with which `crossfade size` was measured, in bytes. */
export const MEASURED_RECORD = 222;

const UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `30m`, `2h`, `1d`, in ms. */
export function parseDuration(text: string): number {
  const [, number, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const ms = Number(number) * (UNITS[unit] ?? 0);
  if (!(ms > 0)) throw new InvalidArgumentError('a time such as 90s, 30m, 2h or 1d');
  return ms;
}

export function parseStage(text: string): Stage {
  if (!isStage(text)) throw new InvalidArgumentError(`one of ${STAGES.join(', ')}`);
  return text;
}

export function parseFormat(text: string): SessionFormatName {
  const format = SESSION_FORMATS.find((known) => known === text);
  if (!format) throw new InvalidArgumentError(`one of ${SESSION_FORMATS.join(', ')}`);
  return format;
}

export function someText(text: string): string {
  if (text.trim() === '') throw new InvalidArgumentError('a name, not an empty one');
  return text;
}

/** Why an operator does it: what the audit says. */
export function parseWhy(text: string): string {
  const why = text.trim();
  if (why === '' || why.length > MAX_WHY) throw new InvalidArgumentError(`a reason of 1 to ${MAX_WHY} characters`);
  return why;
}

export function parseBasePath(text: string): string {
  if (!/^(\/(?!\.)[A-Za-z0-9._~-]+)+$/.test(text))
    throw new InvalidArgumentError('a path such as /crossfade: it starts with / and does not end with one');
  return text;
}

export function parseTime(text: string): Date {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new InvalidArgumentError('a time such as 2026-12-01T00:00:00Z');
  return time;
}

export function positiveInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on');
  return value;
}

import type { KeyStatus } from '../console/status.js';
import { describeKeyHold } from '../keys/signing.js';

/** A table for people: columns as wide as they must be, two spaces between them, no longer than the terminal where that can be. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  return rows.map((row) =>
    row
      .map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}

const COLUMNS = 80;

/** Lines of at most 80 columns, each after `indent`; a word that is longer stays whole. */
export function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= COLUMNS) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(last === undefined ? indent + word : `${indent}  ${word}`);
  }
  return lines;
}

/** `3 min`, `2 h`. */
export function span(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`;
}

/** The beginning of a kid, as much as tells keys apart. */
export function short(kid: string): string {
  return kid.slice(0, 8);
}

/** How far a key is, in words. */
export function describeKey(key: KeyStatus, live: number, nowMs: number, publishSeconds: number): string {
  switch (key.phase) {
    case 'active':
      return `signs on ${key.signedBy} of ${live}, verified by ${key.verifiedBy}`;
    case 'next':
      return `verified by ${key.verifiedBy} of ${live}; ${describeWaiting(key, publishSeconds)}`;
    case 'retiring':
      return (key.retiringUntil ?? 0) > nowMs
        ? `its tokens live for another ${span((key.retiringUntil ?? 0) - nowMs)} at most`
        : 'nothing that it signed lives: crossfade keys retire';
    case 'revoked':
    case 'retired':
      return key.verifiedBy > 0 ? `STILL verified by ${key.verifiedBy} of ${live}` : (key.why ?? '');
  }
}

function describeWaiting({ hold, files }: KeyStatus, publishSeconds: number): string {
  if (files.length === 0) return 'no live instance has its private half';
  return hold ? describeKeyHold(hold, publishSeconds) : 'ready: it signs where no newer key does';
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

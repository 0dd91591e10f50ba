import { createHash, createHmac } from 'node:crypto';
import type { WrittenSetting } from '../config/written-settings.js';
import type { Announcement } from './announcement.js';

const DIGEST_LENGTH = 8;

/** A digest of each setting. Without the key they tell nothing, and the same on all instances that say the same. */
export function digestSettings(key: Buffer, settings: readonly WrittenSetting[]): Record<string, string> {
  return Object.fromEntries(
    settings.map(([path, text]) => [path, createHmac('sha256', key).update(`${path}\0${text}`).digest('base64url').slice(0, DIGEST_LENGTH)]),
  );
}

/** One name for all of them together. */
export function fingerprintOf(settings: Readonly<Record<string, string>>): string {
  return createHash('sha256')
    .update(JSON.stringify(Object.entries(settings).sort()))
    .digest('base64url')
    .slice(0, 12);
}

/** A setting that is not the same on all live instances. */
export interface Drift {
  /** `sessions[0].secretsFile`. */
  readonly setting: string;
  /** Instances that have the same, the largest group first. */
  readonly groups: readonly (readonly string[])[];
}

type Configured = Pick<Announcement, 'settings'> & { readonly name: string };

/** Of instances that say what they are configured with. */
export function findDrift(instances: readonly Configured[]): Drift[] {
  const told = instances.flatMap(({ name, settings }) => (settings ? [{ name, settings }] : []));
  const paths = [...new Set(told.flatMap(({ settings }) => Object.keys(settings)))].sort();
  return paths.flatMap((setting) => {
    const groups = new Map<string, string[]>();
    for (const { name, settings } of told) groups.set(settings[setting] ?? '', [...(groups.get(settings[setting] ?? '') ?? []), name]);
    if (groups.size < 2) return [];
    return [{ setting, groups: [...groups.values()].map(inOrder).sort((one, other) => other.length - one.length) }];
  });
}

/** More than these are not told one by one. */
const MAX_TOLD = 8;

/** A sentence for each setting: `sessions[0].secretsFile differs: web-1 to web-9 / web-10`. */
export function describeDrift(drift: readonly Drift[]): string[] {
  const told = drift.slice(0, MAX_TOLD).map(({ setting, groups }) => `${setting} differs: ${groups.map(describeGroup).join(' / ')}`);
  const more = drift.slice(MAX_TOLD).map(({ setting }) => setting);
  return more.length === 0 ? told : [...told, `${more.length} more settings differ: ${more.join(', ')}`];
}

function inOrder(names: readonly string[]): string[] {
  return [...names].sort((one, other) => one.localeCompare(other, 'en', { numeric: true }));
}

const NUMBERED = /^(.*?)(\d+)$/;

/** Names in a row as the first and the last. */
export function describeGroup(names: readonly string[]): string {
  const runs: string[][] = [];
  for (const name of names) {
    const run = runs.at(-1);
    const last = run?.at(-1);
    if (run && last !== undefined && follows(last, name)) run.push(name);
    else runs.push([name]);
  }
  return runs.flatMap((run) => (run.length < 3 ? run : [`${run[0]} to ${run.at(-1)}`])).join(', ');
}

function follows(one: string, other: string): boolean {
  const [, stem, number] = NUMBERED.exec(one) ?? [];
  const [, otherStem, otherNumber] = NUMBERED.exec(other) ?? [];
  return stem !== undefined && stem === otherStem && Number(otherNumber) === Number(number) + 1;
}

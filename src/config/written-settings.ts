import { readFileSync } from 'node:fs';

/** A setting and what it says, as text. */
export type WrittenSetting = readonly [path: string, text: string];

/** Of these two instances may well differ: addresses of a machine, what changes there by itself, and what names a place on its disk. */
const LEFT_OUT = /^(listen|admin\.(host|port|tokenFile)|keys\.directory)$|(^|\.)(passwordFile|usernameFile|urlFile|sentinelPasswordFile|caFile)$/;
/** In detail for as many; a configuration of very many clients is told by entries, or by top-level settings. */
const MAX_SETTINGS = 200;

/**
 * What a configuration says where it says something: the parsed values of the settings that are written, each under its path
 * (`tokens.accessTtlSeconds`, `sessions[0].cookie`). Of a file with secrets it is the content. Defaults are left out, so that a release with
 * another setting or default is not another configuration. Holds secrets: for digests only.
 */
export function readWrittenSettings(input: unknown, parsed: unknown, resolve: (path: string) => string): readonly WrittenSetting[] {
  const written = pick(input, parsed, '', resolve);
  return [membersOfEntries, entries].map((detail) => detail(written)).find((found) => found.length <= MAX_SETTINGS) ?? topLevel(written);
}

function pick(input: unknown, parsed: unknown, path: string, resolve: (path: string) => string): unknown {
  if (LEFT_OUT.test(path)) return undefined;
  if (Array.isArray(input) && Array.isArray(parsed)) return input.map((item, index) => pick(item, parsed[index], `${path}[${index}]`, resolve));
  if (isMapping(input) && isMapping(parsed)) {
    const members = Object.keys(input).flatMap((name) => {
      const found = pick(input[name], parsed[name], path === '' ? name : `${path}.${name}`, resolve);
      return found === undefined ? [] : [[name, found] as const];
    });
    return Object.fromEntries(members.sort(([one], [other]) => (one < other ? -1 : 1)));
  }
  if (/File$/.test(path) && typeof parsed === 'string') return contentOf(resolve(parsed));
  // The flags themselves change while the bridge runs, and the fleet hears of them by the same way.
  if (path === 'rollout.flags.file') return true;
  return typeof parsed === 'string' ? parsed.replace(/^(rediss?:\/\/)[^/@]*@/, '$1') : parsed;
}

function topLevel(written: unknown): WrittenSetting[] {
  return isMapping(written) ? Object.entries(written).map(([name, value]) => [name, JSON.stringify(value)]) : [];
}

/** `tokens.accessTtlSeconds`, `sessions[0]`. */
function entries(written: unknown): WrittenSetting[] {
  if (!isMapping(written)) return [];
  return Object.entries(written).flatMap(([name, value]): WrittenSetting[] => {
    if (Array.isArray(value) && value.some(isMapping)) return value.map((item, index) => [`${name}[${index}]`, JSON.stringify(item)]);
    return isMapping(value) ? membersOf(name, value) : [[name, JSON.stringify(value)]];
  });
}

/** `tokens.accessTtlSeconds`, `sessions[0].cookie`. */
function membersOfEntries(written: unknown): WrittenSetting[] {
  if (!isMapping(written)) return [];
  return Object.entries(written).flatMap(([name, value]): WrittenSetting[] => {
    if (Array.isArray(value) && value.some(isMapping))
      return value.flatMap((item, index) => (isMapping(item) ? membersOf(`${name}[${index}]`, item) : []));
    return isMapping(value) ? membersOf(name, value) : [[name, JSON.stringify(value)]];
  });
}

function membersOf(path: string, value: Readonly<Record<string, unknown>>): WrittenSetting[] {
  return Object.entries(value).map(([name, member]) => [`${path}.${name}`, JSON.stringify(member)]);
}

/** Lines, without those that say nothing. */
function contentOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .join('\n');
  } catch {
    return '';
  }
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

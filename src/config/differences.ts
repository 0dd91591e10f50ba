import { isDeepStrictEqual } from 'node:util';

/** Paths of what is not the same in both: `redis.url`, `sessions[0].cookie`. Lists of another length differ as a whole. */
export function differences(one: unknown, other: unknown, path = ''): string[] {
  if (Array.isArray(one) && Array.isArray(other) && one.length === other.length)
    return one.flatMap((item, index) => differences(item, other[index], `${path}[${index}]`));
  if (isMapping(one) && isMapping(other)) {
    const names = new Set([...Object.keys(one), ...Object.keys(other)]);
    return [...names].flatMap((name) => differences(one[name], other[name], path === '' ? name : `${path}.${name}`));
  }
  return isDeepStrictEqual(one, other) ? [] : [path === '' ? 'everything' : path];
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

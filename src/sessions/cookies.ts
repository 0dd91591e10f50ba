/** Cookies in the order in which they came. A name may stand more than once: cookies of several paths or domains. */
export type CookiePairs = readonly (readonly [name: string, value: string])[];

/** Reads a `Cookie` header (RFC 6265, section 4.2.1), keeping every pair: the usual parsers keep the first of a name. */
export function parseCookies(header: string): CookiePairs {
  const pairs: [string, string][] = [];
  for (const part of header.split(';')) {
    const at = part.indexOf('=');
    const name = part.slice(0, Math.max(at, 0)).trim();
    if (name === '') continue;
    const value = part.slice(at + 1).trim();
    pairs.push([name, value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value]);
  }
  return pairs;
}

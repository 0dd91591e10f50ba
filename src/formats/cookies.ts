/** Cookies in the order in which they came. A name may stand more than once: cookies of several paths or domains. */
export type CookiePairs = readonly (readonly [name: string, value: string])[];

/** Reads a `Cookie` header (RFC 6265, section 4.2.1), keeping every pair: the usual parsers keep the first of a name. */
export function parseCookies(header: string): CookiePairs {
  const pairs: [string, string][] = [];
  let at = -1;
  for (let from = 0; from < header.length; ) {
    const semicolon = header.indexOf(';', from);
    const end = semicolon < 0 ? header.length : semicolon;
    // Each part of the header is looked through once, whatever it is made of.
    if (at < from) at = header.indexOf('=', from);
    if (at < 0) break;
    const name = at < end ? header.slice(from, at).trim() : '';
    if (name !== '') pairs.push([name, unquoted(header.slice(at + 1, end).trim())]);
    from = end + 1;
  }
  return pairs;
}

function unquoted(value: string): string {
  return value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
}

/**
 * Whether a JSON text nests deeper than `max` levels. What comes from outside is asked this first, because the time that JSON.stringify takes
 * grows with the square of the depth.
 */
export function nestsDeeperThan(max: number, text: string): boolean {
  return outlineOf(text).depth > max;
}

/** How many levels a JSON text has at its deepest, and how many colons stand outside of strings: one for each member. Reads each character once. */
export function outlineOf(text: string): { readonly depth: number; readonly colons: number } {
  let level = 0;
  let depth = 0;
  let colons = 0;
  let isInString = false;
  for (let at = 0; at < text.length; at++) {
    const character = text.charCodeAt(at);
    if (isInString) {
      if (character === BACKSLASH) at += 1;
      else if (character === QUOTE) isInString = false;
    } else if (character === QUOTE) isInString = true;
    else if (character === COLON) colons += 1;
    else if (character === OPEN_BRACE || character === OPEN_BRACKET) {
      level += 1;
      if (level > depth) depth = level;
    } else if (character === CLOSE_BRACE || character === CLOSE_BRACKET) level -= 1;
  }
  return { depth, colons };
}

const [QUOTE, BACKSLASH, COLON, OPEN_BRACE, CLOSE_BRACE, OPEN_BRACKET, CLOSE_BRACKET] = [0x22, 0x5c, 0x3a, 0x7b, 0x7d, 0x5b, 0x5d];

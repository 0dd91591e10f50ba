// Elements out of text: nothing that comes from elsewhere is ever read as HTML.

/** @typedef {Node | string | number | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} attributes
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  return fill(element, attributes, children);
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...Child} children
 */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} element
 * @param {Record<string, string | number>} attributes
 * @param {Child[]} children
 * @returns {E}
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  for (const child of children) if (child !== undefined && child !== false) element.append(typeof child === 'number' ? String(child) : child);
  return element;
}

/** @param {string} id */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Puts these in the place of what is there, unless it is the same: a focus or a selection stays where it is.
 * @param {string} id
 * @param {...Child} children
 */
export function show(id, ...children) {
  const next = el('div', {}, ...children);
  const place = byId(id);
  if (place.innerHTML !== next.innerHTML) place.replaceChildren(...next.childNodes);
}

/**
 * @param {string[]} heads ending with `#`: a column of numbers
 * @param {Child[][]} rows of which the first cell names the row
 * @param {string} nothing
 */
export function table(heads, rows, nothing) {
  if (rows.length === 0) return el('p', { class: 'nothing' }, nothing);
  const isNumber = heads.map((head) => head.endsWith('#'));
  /** @param {number} at @returns {Record<string, string>} */
  const numbers = (at) => (isNumber[at] ? { class: 'number' } : {});
  return el(
    'table',
    {},
    el('thead', {}, el('tr', {}, ...heads.map((head, at) => el('th', { scope: 'col', ...numbers(at) }, head.replace('#', ''))))),
    el(
      'tbody',
      {},
      ...rows.map((row) => el('tr', {}, ...row.map((cell, at) => (at === 0 ? el('th', { scope: 'row' }, cell) : el('td', numbers(at), cell))))),
    ),
  );
}

const UNITS = /** @type {const} */ ([
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
]);

/** @param {number} ms */
export function span(ms) {
  const [size, unit] = UNITS.find(([least]) => Math.abs(ms) >= least) ?? UNITS[3];
  return `${Math.round(ms / size)} ${unit}`;
}

/** @param {number} ms */
export function clockTime(ms) {
  return new Date(ms).toISOString().slice(11, 19);
}

/** @param {number} count */
export function number(count) {
  return count.toLocaleString('en-US');
}
